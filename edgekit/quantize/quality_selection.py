"""Calibration images of all qualities: sharp and blurred, noisy and clean, dark and bright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset, stored_file
from edgekit.data.decode import jpeg_step
from edgekit.quantize.calibration_images import CalibrationImage, Codes, Prepare, choose_stratified
from edgekit.quantize.image_quality import Quality, measure
from edgekit.quantize.recipes import Recipe

_LEVELS = 5  # of each measure
_EDGES = (0.02, 0.98)  # quantiles between which the levels are equally wide


@dataclass(frozen=True)
class Measure:
    """The loading function: measures an image at the network's size, corrupted if asked to."""

    prepare: Prepare

    def __call__(self, dataset: Dataset, image: CalibrationImage) -> Quality:
        """Measure one image; a clean JPEG's blocks follow from its own table.

        The network's size has lost the grid of a file's blocks, but not what they did.
        """
        pixels, step = self.prepare(dataset, image), None
        if image.corruption is None and (content := stored_file(dataset, image.index)) is not None:
            step = jpeg_step(content)
        return measure(pixels, step)


def choose_by_quality(
    pool: tuple[CalibrationImage, ...], recipe: Recipe, qualities: Sequence[Quality]
) -> tuple[CalibrationImage, ...]:
    """Every corruption in proportion; within it, the images at the levels chosen least so far."""
    return choose_stratified(pool, recipe, lambda _: levels(qualities))


def levels(qualities: Sequence[Quality]) -> Codes:
    """Which level of each measure an image is at, int64 [M, 4]; no two measures share a number.

    Levels are equally wide, not equally full: otherwise the choice would have the pool's own
    distribution. Noise and blocks are taken by their logarithms, as their effects grow.
    """
    values: NDArray[np.float64] = np.array(qualities, np.float64).reshape(-1, len(Quality._fields))
    logarithmic = [Quality._fields.index(name) for name in ("noise", "blockiness")]
    values[:, logarithmic] = np.log1p(values[:, logarithmic])
    low, high = np.quantile(values, _EDGES, axis=0)
    width = np.where(high > low, high - low, 1.0) / _LEVELS
    own: Codes = np.clip((values - low) // width, 0, _LEVELS - 1).astype(np.int64)
    return own + _LEVELS * np.arange(values.shape[1])
