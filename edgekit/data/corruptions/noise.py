"""Gaussian, shot, impulse and speckle noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgekit.data.corruptions.common import Image, Level, to_levels
from edgekit.data.corruptions.random_fields import Draws

# Standard deviation, of full scale.
_GAUSSIAN = {
    224: (0.08, 0.12, 0.18, 0.26, 0.38),
    64: (0.04, 0.08, 0.12, 0.15, 0.18),
    32: (0.04, 0.06, 0.08, 0.09, 0.10),
}
# Photons that a white pixel collects.
_SHOT = {
    224: (60, 25, 12, 5, 3),
    64: (250, 100, 50, 30, 15),
    32: (500, 250, 100, 75, 50),
}
# Fraction of values that become 0 or 255.
_IMPULSE = {
    224: (0.03, 0.06, 0.09, 0.17, 0.27),
    64: (0.01, 0.02, 0.05, 0.08, 0.14),
    32: (0.01, 0.02, 0.03, 0.05, 0.07),
}
# Standard deviation, of the pixel's own value.
_SPECKLE = {
    224: (0.15, 0.2, 0.35, 0.45, 0.6),
    64: (0.15, 0.2, 0.25, 0.3, 0.35),
    32: (0.06, 0.1, 0.12, 0.16, 0.2),
}


def gaussian_noise(image: Image, level: Level, draws: Draws) -> Image:
    """Adds normal noise of one standard deviation everywhere."""
    noise = draws.normal(image.shape)
    noise *= 255 * _GAUSSIAN[level.table][level.severity - 1]
    noise += image
    return to_levels(noise)


def speckle_noise(image: Image, level: Level, draws: Draws) -> Image:
    """Adds normal noise proportional to the pixel's value."""
    noise = draws.normal(image.shape)
    noise *= _SPECKLE[level.table][level.severity - 1]
    noise += 1
    noise *= image
    return to_levels(noise)


def shot_noise(image: Image, level: Level, draws: Draws) -> Image:
    """Counts photons: Poisson noise, stronger the fewer photons a white pixel collects."""
    full_scale = _SHOT[level.table][level.severity - 1]
    counts = draws.photon_counts(image, full_scale)
    return levels_of_counts(full_scale).take(counts, mode="clip")


def impulse_noise(image: Image, level: Level, draws: Draws) -> Image:
    """Sets a fraction of the values to black or white, half each."""
    half = 0.5 * _IMPULSE[level.table][level.severity - 1]
    chance = draws.uniform(image.shape)
    noisy = image.copy()
    np.copyto(noisy, 0, where=chance < half)
    np.copyto(noisy, 255, where=chance >= 1 - half)
    return noisy


@lru_cache(maxsize=16)
def levels_of_counts(full_scale: int) -> Image:
    """The gray level of 0 ... full_scale photons; more photons take the last entry."""
    return (np.arange(full_scale + 1) / full_scale * 255).astype(np.uint8)
