"""Small classifiers of pixels, quick enough to be run thousands of times."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset, subset
from edgekit.data.corruption_grid import Cells, MakeVariants
from edgekit.data.datasets import open_dataset
from edgekit.data.transforms import Preprocessing
from edgekit.parity.sweep import Sweep
from edgekit.runtime.answers import Answers

PREPROCESSING = Preprocessing(size=(32, 32))
CELLS = Cells(("gaussian_noise", "fog"), (1, 4))
CODES = 12


@dataclass
class Coarse:
    """Nearest class mean of 8 x 8 gray pixels; it counts what it is asked.

    ``blind`` is the share of the picture, from the left, that it does not see: damage.
    """

    means: NDArray[np.int64]  # [classes, 64]
    name: str = "coarse"
    key: str = "coarse"
    source: str = "c0ffee"
    training: str = "seen=none"
    blind: float = 0.0
    coded: bool = True
    preprocessing: Preprocessing = PREPROCESSING
    asked: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        names = open_dataset("builtin:fashion-mnist").classes
        return names if len(self.means) == len(names) else tuple(map(str, range(len(self.means))))

    def run(self, images: NDArray[np.uint8]) -> Answers:
        self.asked += len(images)
        features = features_of(images)
        features.reshape(-1, 8, 8)[:, :, : round(8 * self.blind)] = 0
        scores = features @ self.means.T - (self.means**2).sum(axis=1) // 2
        codes = features @ self.means[0] / 1e8
        index = np.abs(codes).astype(np.int64) % CODES
        margin = np.abs(codes % 1).astype(np.float32)
        return Answers(
            (scores / 2e7).astype(np.float32),
            index if self.coded else None,
            margin if self.coded else None,
        )


def features_of(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[B, 32, 32, 3] -> [B, 64]; whole numbers, so that batches of any size agree exactly."""
    blocks = images.reshape(len(images), 8, 4, 8, 4, 3)
    return np.asarray(blocks.sum(axis=(2, 4, 5), dtype=np.int64).reshape(-1, 64))


def images(count: int = 0) -> Dataset:
    """The first built-in test images."""
    dataset = open_dataset("builtin:fashion-mnist")
    rows = dataset.given_splits["test"]
    return subset(dataset, rows[:count] if count else rows)


def coarse(**changes: object) -> Coarse:
    """A model with the means of some training images."""
    dataset = open_dataset("builtin:fashion-mnist")
    rows = dataset.given_splits["train"][:600].tolist()
    pixels = np.stack([PREPROCESSING.fit(dataset.image(i)) for i in rows])
    labels = np.array([dataset.label(i) for i in rows])
    features = features_of(pixels)
    means = np.stack(
        [features[labels == label].mean(axis=0).astype(np.int64) for label in range(10)]
    )
    return dataclasses.replace(Coarse(means), **changes)  # type: ignore[arg-type]


def sweep(cache: Path, reference: Coarse, candidate: Coarse, **changes: object) -> Sweep:
    """A sweep over 24 images in the caller's process, unless said otherwise."""
    usual = Sweep(
        images(24), MakeVariants(PREPROCESSING, CELLS), reference, candidate, cache, 0, workers=0
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]
