"""The table of `remove_paths` in docs/methods.md: a small transformer with 0, 2 and 4 paths less.

    EDGEKIT_CIFAR10=cifar10-jpeg.npz python benchmarks/paths.py --work /tmp/paths

A transformer (`vit`) learns from random weights. Then, for every seed, it is fine-tuned with the
same settings as it is, and with paths removed. The last checkpoints are judged on test images, as
methods.py judges its own, and those of the first seed are exported and timed in turns. Seeds vary
the fine-tuning alone: which paths are removed follows from the one network and its validation
images. Finished runs in --work are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from methods import table
from numpy.typing import NDArray
from torch import nn

from edgekit.bench.interleaved import ratio
from edgekit.core.console import Console
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.datasets import open_dataset
from edgekit.data.pool import Pool
from edgekit.data.splits import split_dataset, stratified_sample
from edgekit.export.exporter import export_onnx
from edgekit.model.backbones.timm import import_timm
from edgekit.model.checkpoint import load_checkpoint
from edgekit.runtime.onnxruntime import open_session
from edgekit.training.config import TrainConfig
from edgekit.training.determinism import reproducible
from edgekit.training.distributed import World
from edgekit.training.results import Evaluation
from edgekit.training.run import run_training
from edgekit.training.validation import Group, evaluate_images, image_groups
from edgekit.training.views import ViewLoader

REMOVED = (0, 2, 4)
BASE = TrainConfig(
    backbone="paths:vit",
    weights="none",
    image_size=32,
    freeze=False,
    head="none",
    train_images=4000,
    validation_images=100,
    seen="extra4",
    pairing="sampled",
    augment="crop",
    epochs=8,
    batch_size=64,
    optimizer="adamw",
    lr=0.001,
    weight_decay=0.05,
    workers=0,
    threads=1,
    save_every=600.0,
)
FINE_TUNING = dataclasses.replace(
    BASE, pairing="paired", train_images=500, validation_images=80, epochs=2, lr=0.0003
)


def vit() -> nn.Module:
    """A transformer of 6 blocks, so 12 paths, on 64 patches of an image of 32 pixels."""
    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    network: nn.Module = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=96, depth=6, num_heads=3, num_classes=0
    )
    return network


def base(data: str, work: Path, console: Console) -> Path:
    """The network that all fine-tuning starts from."""
    config = dataclasses.replace(BASE, data=data, out=work / "base")
    return run_training(config, console).last


def fine_tuned(start: Path, data: str, count: int, seed: int, console: Console) -> TrainConfig:
    """Fine-tune with ``count`` paths less, unless that is done."""
    config = dataclasses.replace(
        FINE_TUNING,
        data=data,
        weights=str(start),
        seed=seed,
        remove_paths=count,
        out=start.parent.parent / f"removed-{count}-{seed}",
    )
    console.info(f"== {config.out.name}")
    run_training(config, console)
    return config


def judged(config: TrainConfig, groups: Sequence[Group]) -> Evaluation:
    """The last checkpoint's errors on test images."""
    model = load_checkpoint(config.out / "last.safetensors", backbone=BASE.backbone).model
    with reproducible(0, BASE.threads):
        return evaluate_images([model], groups, BENCHMARK15, torch.device("cpu"), World())[0]


def test_groups(data: str, start: Path, images: int) -> list[Group]:
    """Test images, clean and under the 15 benchmark corruptions, corrupted once for all runs."""
    preprocessing = load_checkpoint(start, backbone=BASE.backbone).card.preprocessing
    dataset = open_dataset(data)
    rows = stratified_sample(dataset, images, indices=split_dataset(dataset).test)
    with Pool(dataset, ViewLoader(preprocessing), 0) as pool:
        return list(image_groups(rows, BENCHMARK15, preprocessing, pool, World()))


def sizes_and_speed(checkpoints: dict[int, Path]) -> str:
    """Markdown: the exported graphs of models with so many paths less, timed in turns."""
    lines = ["| paths removed | nodes | MB | ONNX Runtime | OpenVINO |", "|---|" + 4 * "---|"]
    graphs = {count: _exported(checkpoint) for count, checkpoint in checkpoints.items()}
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    runs = [
        {count: runner(path, images) for count, path in graphs.items()}
        for runner in (_onnxruntime, _openvino)
    ]
    for count, path in graphs.items():
        nodes, size = len(onnx.load(path).graph.node), path.stat().st_size / 1e6
        speed = [_times(one[0], one[count]) if count else "1" for one in runs]
        lines.append(f"| {count} | {nodes} | {size:.2f} | {' | '.join(speed)} |")
    return "\n".join(lines)


def _exported(checkpoint: Path) -> Path:
    loaded, path = (
        load_checkpoint(checkpoint, backbone=BASE.backbone),
        checkpoint.with_suffix(".onnx"),
    )
    export_onnx(loaded.model, loaded.card, path, batch=1)
    return path


def _onnxruntime(path: Path, images: NDArray[np.float32]) -> Callable[[], object]:
    session = open_session(str(path), threads=1)
    return lambda: session.run(None, {"images": images})


def _openvino(path: Path, images: NDArray[np.float32]) -> Callable[[], object]:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    return lambda: compiled({"images": images})


def _times(plain: Callable[[], object], other: Callable[[], object], turns: int = 30) -> str:
    """How much less processor time ``other`` takes: on one thread, it is the latency."""
    spent = [(_spent(plain), _spent(other)) for _ in range(turns)]
    found = ratio([one for one, _ in spent], [one for _, one in spent])
    return f"{found.median:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _spent(run: Callable[[], object]) -> float:
    for counted in (False, True):
        started = time.process_time()
        for _ in range(40 if counted else 5):  # the first calls find cold caches
            run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--data", default=os.environ.get("EDGEKIT_CIFAR10"), help="images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name images with --data, or CIFAR-10's file in EDGEKIT_CIFAR10")
    console, started = Console(), time.process_time()
    start = base(arguments.data, arguments.work, console)
    print(f"{time.process_time() - started:.0f} s of processor time so far", flush=True)
    groups = test_groups(arguments.data, start, arguments.test_images)
    results: dict[str, list[Evaluation]] = {}
    checkpoints: dict[int, Path] = {}
    for seed in range(arguments.seeds):
        for count in REMOVED:
            config = fine_tuned(start, arguments.data, count, seed, console)
            checkpoints.setdefault(count, config.out / "last.safetensors")
            name = f"{count} removed" if count else "none"
            results.setdefault(name, []).append(judged(config, groups))
        print(f"\nseeds: {seed + 1}\n\n{table(results)}", flush=True)
    print(f"\n{sizes_and_speed(checkpoints)}")
    print(f"\n{time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
