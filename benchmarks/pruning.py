"""The tables of docs/methods.md on pruning: error, parity, size and latency at several shares.

    EDGEKIT_CIFAR10=cifar10-jpeg.npz python benchmarks/pruning.py --work /tmp/pruning

For every seed a frozen EfficientNet-Lite0 gets a head, and then learns with it, losing a share of
its channels on the way or none. The last checkpoint of each is judged on test images as in
methods.py. Those of the first seed are built to INT8 with the parity of `edgekit build`, once with
the images that they learned from and once at 224 pixels for their latency, which `edgekit bench`
measures in turns. Finished runs in --work are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
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


def built(config: TrainConfig, target: str, data: str, images: int) -> dict[str, Any]:
    """The parity of a run's checkpoint in INT8, on the images' own size."""
    out = config.out / target
    if not (out / "parity.json").exists():
        edgekit(
            *("build", "--checkpoint", str(config.out / "last.safetensors"), "--data", data),
            *("--target", target, "--images", str(images), "--out", str(out), "--replace"),
        )
    document: dict[str, Any] = json.loads((out / "parity.json").read_text())
    return document


def large(config: TrainConfig, data: str) -> tuple[Path, Path]:
    """Bundles of the checkpoint for images of 224 pixels, without parity: for latency alone."""
    checkpoint = config.out / f"{SIZE}.safetensors"
    if not checkpoint.exists():
        loaded = load_checkpoint(config.out / "last.safetensors")
        size = dataclasses.replace(loaded.card.preprocessing, size=(SIZE, SIZE))
        save_checkpoint(
            checkpoint, loaded.model, dataclasses.replace(loaded.card, preprocessing=size)
        )
    bundles = []
    for target in TARGETS:
        out = config.out / f"{target}-{SIZE}"
        if not out.exists():
            edgekit(
                *("build", "--checkpoint", str(checkpoint), "--data", data, "--target", target),
                *("--no-parity", "--out", str(out)),
            )
        bundles.append(out)
    return bundles[0], bundles[1]


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
        configs = [settings(options.data, options.work, share, 0) for share in SHARES]
        for config in configs:
            for target in TARGETS:
                print(config.out.name, target, built(config, target, options.data, 300)["verdict"])
        for target, bundles in zip(
            TARGETS,
            zip(*(large(config, options.data) for config in configs), strict=True),
            strict=True,
        ):
            compared = edgekit(
                "bench",
                *map(str, bundles),
                "--compare",
                "--scenario",
                "latency",
                "--baseline",
                "none",
            )
            print(target, json.dumps(compared)[:3000])


if __name__ == "__main__":
    main()
