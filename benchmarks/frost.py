"""Compares how hard generated frost and the reference's photographs are for a model.

    python benchmarks/frost.py build/cpu --textures frost
    python benchmarks/frost.py build/cpu --data cifar10.npz --textures frost --images 600

Every test image gets frost of each severity a few times, at the network's size as in `edgekit
parity`, once with edgekit's textures and once with the photographs (frost1.png to frost5.jpg in a
folder of yours). Both draw the same positions, but the pictures differ, so that images can only be
compared on average. The interval is that of the difference, from resampled images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.store import open_bundle
from edgekit.data.base import labels
from edgekit.data.corruptions import corrupt
from edgekit.data.datasets import open_dataset
from edgekit.data.splits import split_dataset, stratified_sample
from edgekit.metrics.corruption_error import SEVERITIES
from edgekit.runtime.model import Model, load

_BATCH = 64


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", default="builtin:fashion-mnist")
    parser.add_argument("--textures", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--draws", type=int, default=3, help="of each image and severity")
    arguments = parser.parse_args()
    model = load(arguments.bundle)
    fit = open_bundle(arguments.bundle).manifest.preprocessing.fit
    dataset = open_dataset(arguments.data)
    part = split_dataset(dataset, seed=0).part("test", dataset)
    rows = stratified_sample(part, arguments.images, seed=0)
    clean = [fit(part.image(int(row))) for row in rows]
    expected = labels(part)[rows]
    height, width = clean[0].shape[:2]
    print(f"{len(rows)} images of {width} x {height}, {arguments.draws} draws each\n")
    print("| severity | photographs % | generated % | difference |")
    print("|---|---|---|---|")
    for severity in SEVERITIES:
        errors = [
            _wrong(model, list(_frosted(clean, severity, arguments.draws, folder)), expected)
            for folder in (arguments.textures, None)
        ]
        photographs, generated = (100 * wrong.mean(axis=0) for wrong in errors)
        low, high = _interval(generated - photographs)
        difference = generated.mean() - photographs.mean()
        print(
            f"| {severity} | {photographs.mean():.1f} | {generated.mean():.1f} "
            f"| {difference:+.1f} [{low:+.1f}, {high:+.1f}] |",
            flush=True,
        )


def _frosted(
    images: list[NDArray[np.uint8]], severity: int, draws: int, folder: Path | None
) -> Iterator[NDArray[np.uint8]]:
    """Draw by draw, all images."""
    for draw in range(draws):
        for number, image in enumerate(images):
            yield corrupt(
                image, "frost", severity, image_id=str(number), seed=draw, frost_textures=folder
            )


def _wrong(
    model: Model, images: list[NDArray[np.uint8]], expected: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """[draws, images]."""
    parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    found = np.concatenate([model.run(np.stack(part)).logits.argmax(axis=1) for part in parts])
    wrong: NDArray[np.bool_] = found.reshape(-1, len(expected)) != expected
    return wrong


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """95%, over images."""
    random = np.random.default_rng(0)
    chosen = random.integers(len(differences), size=(2000, len(differences)))
    low, high = np.quantile(differences[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
