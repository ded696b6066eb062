"""The images of a calibration: chosen by recipe, listed with hashes, loaded at network size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset
from edgekit.data.corruptions import corrupt, parse_seen
from edgekit.data.loading import load, rng_for
from edgekit.data.splits import stratified_sample
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.recipes import Recipe


@dataclass(frozen=True)
class CalibrationImage:
    """One image of the list that is stored beside the result."""

    index: int  # in the calibration part
    key: str
    sha256: str
    corruption: str | None
    severity: int | None


@dataclass(frozen=True)
class Prepare:
    """The loading function: fit an image to the network's size, corrupt it if asked to."""

    preprocessing: Preprocessing
    seed: int

    def __call__(self, dataset: Dataset, image: CalibrationImage) -> NDArray[np.uint8]:
        """Load one image, uint8 [height, width, 3]."""
        fitted = self.preprocessing.fit(dataset.image(image.index))
        if image.corruption is None or image.severity is None:
            return fitted
        return corrupt(
            fitted, image.corruption, image.severity, image_id=image.sha256, seed=self.seed
        )


def choose_images(dataset: Dataset, recipe: Recipe, seed: int) -> tuple[CalibrationImage, ...]:
    """Which images of ``dataset`` (the calibration part) calibrate, in order."""
    chosen = stratified_sample(dataset, recipe.images, seed=seed).tolist()
    corruptions = parse_seen(recipe.corruptions)
    images = []
    for position, index in enumerate(chosen):
        image = CalibrationImage(index, dataset.key(index), dataset.digest(index), None, None)
        # Spread over the list evenly: the k-th image is corrupted when k * share passes a whole.
        before, after = (int((position + step) * recipe.corrupted_share) for step in (0, 1))
        if after > before:
            rng = rng_for(seed, 0, f"calibrate {image.sha256}")
            image = dataclasses.replace(
                image,
                corruption=corruptions[before % len(corruptions)],
                severity=int(rng.choice(recipe.severities)),
            )
        images.append(image)
    return tuple(images)


def load_images(
    dataset: Dataset,
    images: tuple[CalibrationImage, ...],
    preprocessing: Preprocessing,
    seed: int,
    workers: int = 0,
) -> NDArray[np.uint8]:
    """The chosen images, uint8 [M, height, width, 3]; 300 of 224 px are 45 MB."""
    return np.stack(list(load(dataset, images, Prepare(preprocessing, seed), workers=workers)))
