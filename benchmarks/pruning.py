"""The tables of docs/methods.md on pruning: error, parity, size and latency at several shares.

    EDGEKIT_CIFAR10=cifar10-jpeg.npz python benchmarks/pruning.py --work /tmp/pruning

For every seed a frozen EfficientNet-Lite0 gets a head, and then learns with it, losing a share of
its channels on the way or none. The last checkpoint of each is judged on test images as in
methods.py. With --build those of the first seed become INT8 bundles: at the size that they learned
with, with the parity of `edgekit build`, and at 224 pixels for latency, which `edgekit bench`
measures in turns. Finished runs in --work are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods import BASE, result, table, test_groups

from edgekit.core.console import Console
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.training.config import TrainConfig
from edgekit.training.results import Evaluation

SHARES = (0.0, 0.3, 0.5)
TARGETS = ("cpu", "onnxruntime-cpu")
SIZE = 224  # of the images for latency


def settings(data: str, work: Path, share: float, seed: int) -> TrainConfig:
    """A run's settings; features of the frozen backbone are shared by all."""
    return dataclasses.replace(
        BASE,
        data=data,
        seed=seed,
        out=work / f"{_name(share)}-{seed}",
        cache=work / "features",
        train_images=1200,
        finetune_epochs=3,
        prune=share,
    )


def _name(share: float) -> str:
    return f"{100 * share:.0f}" if share else "none"


def edgekit(*arguments: str) -> dict[str, Any]:
    """What a command prints as JSON; 3 is a verdict, not a failure."""
    command = [sys.executable, "-m", "edgekit", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def built(config: TrainConfig, data: str) -> list[dict[str, Any]]:
    """The parity of a run's checkpoint in INT8, at the size that it learned with."""
    out = config.out / "int8"
    if not all((out / target / "parity.json").exists() for target in TARGETS):
        build(config.out / "last.safetensors", data, out, "--parity-images", "300")
    return [json.loads((out / target / "parity.json").read_text()) for target in TARGETS]


def large(config: TrainConfig, data: str) -> Path:
    """The folder of bundles for images of 224 pixels, without parity: for latency alone."""
    checkpoint, out = config.out / f"{SIZE}.safetensors", config.out / f"int8-{SIZE}"
    if not checkpoint.exists():
        loaded = load_checkpoint(config.out / "last.safetensors")
        size = dataclasses.replace(loaded.card.preprocessing, size=(SIZE, SIZE))
        card = dataclasses.replace(loaded.card, preprocessing=size)
        save_checkpoint(checkpoint, loaded.model, card)
    if not all((out / target).exists() for target in TARGETS):
        build(checkpoint, data, out, "--no-parity")
    return out


def build(checkpoint: Path, data: str, out: Path, *options: str) -> None:
    """Bundles in INT8 for both targets."""
    edgekit(
        *("build", "--checkpoint", str(checkpoint), "--data", data, "--out", str(out)),
        *(word for target in TARGETS for word in ("--target", target)),
        *("--no-bench", "--no-watch", "--no-guard", *options),
    )


def compare(configs: Sequence[TrainConfig], data: str) -> None:
    """Print the parity of each, and the latency of all in turns."""
    for config in configs:
        for target, parity in zip(TARGETS, built(config, data), strict=True):
            error = parity["corruption_error"]
            print(
                f"{config.out.name} {target}: "
                f"{error['reference']:.1f} -> {error['candidate']:.1f}%, "
                f"{error['delta']:+.2f} [{error['lower']:+.2f}, {error['upper']:+.2f}] points, "
                f"equal top-1 {parity['top1_agreement']['corrupted']['estimate']:.1%}"
            )
    folders = [large(config, data) for config in configs]
    for target in TARGETS:
        bundles = [str(folder / target) for folder in folders]
        options = ("--compare", "--scenario", "latency", "--baseline", "none", "--threads", "1")
        measured = edgekit("bench", *bundles, *options)
        print(target, json.dumps(measured.get("comparison", measured))[:2000])
        for bundle in bundles:
            size = sum(path.stat().st_size for path in Path(bundle).glob("model*"))
            print(f"  {bundle}: {size / 1e6:.2f} MB")


def main() -> None:
    """Train, judge, build and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", default=os.environ.get("EDGEKIT_CIFAR10", ""))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=200, help="Test images of each run.")
    parser.add_argument("--build", action="store_true", help="Build and time the first seed's.")
    options = parser.parse_args()
    if not options.data:
        parser.error("name the images: --data, or EDGEKIT_CIFAR10")
    options.work.mkdir(parents=True, exist_ok=True)
    groups, console = test_groups(options.data, options.images), Console()
    results: dict[str, list[Evaluation]] = {}
    for seed in range(options.seeds):
        for share in SHARES:
            evaluation = result(settings(options.data, options.work, share, seed), groups, console)
            results.setdefault(_name(share), []).append(evaluation)
        print(table(results), flush=True)
    if options.build:
        compare([settings(options.data, options.work, share, 0) for share in SHARES], options.data)


if __name__ == "__main__":
    main()
