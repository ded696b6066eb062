"""Brightness, contrast and saturation."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from edgekit.data.corruptions.common import Floats, Image, Level, to_levels
from edgekit.data.corruptions.random_fields import Draws

# Added to the value of HSV.
_BRIGHTNESS = {
    224: (0.1, 0.2, 0.3, 0.4, 0.5),
    64: (0.1, 0.2, 0.3, 0.4, 0.5),
    32: (0.05, 0.1, 0.15, 0.2, 0.3),
}
# Factor on the distance from the mean.
_CONTRAST = {
    224: (0.4, 0.3, 0.2, 0.1, 0.05),
    64: (0.4, 0.3, 0.2, 0.1, 0.05),
    32: (0.75, 0.5, 0.4, 0.3, 0.15),
}
# Factor on the saturation of HSV, and what is added to it.
_SATURATE = {
    224: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    64: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    32: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}


def brightness(image: Image, level: Level, draws: Draws) -> Image:
    """Raises the value of HSV.

    Hue and saturation stay, so the three channels grow by one factor, that of the largest of
    them: a table over (largest, own level) holds every possible result.
    """
    table = brightness_table(_BRIGHTNESS[level.table][level.severity - 1])
    cell = largest(image).astype(np.uint16)
    cell <<= 8
    return table.take(cell[..., None] | image)


@lru_cache(maxsize=16)
def brightness_table(added: float) -> Image:
    """Result for (value << 8 | channel); a black pixel (value 0) becomes gray."""
    value = np.arange(256)[:, None] / 255
    channel = np.arange(256)[None, :] / 255
    raised = np.clip(value + added, 0, 1)
    share = np.where(value > 0, channel / np.maximum(value, 1 / 255), 1)
    return to_levels(255 * raised * share).reshape(-1)


def contrast(image: Image, level: Level, draws: Draws) -> Image:
    """Draws every channel toward its mean over the image."""
    factor = _CONTRAST[level.table][level.severity - 1]
    mean = np.array(cv2.mean(image)[:3])
    table = np.arange(256.0)[:, None] * factor + mean * (1 - factor)
    contrasted: Image = cv2.LUT(image, to_levels(table)[None])
    return contrasted


def saturate(image: Image, level: Level, draws: Draws) -> Image:
    """Scales the saturation of HSV.

    Value and hue stay, so each channel's distance from the largest grows by one factor, which
    depends on the largest and smallest channel alone. A gray pixel has hue 0: where saturation
    is added it turns red, as if its green and blue had been 0.
    """
    scale, added = _SATURATE[level.table][level.severity - 1]
    high, low = largest(image), smallest(image)
    factor = saturation_table(scale, added).take(high.astype(np.uint16) << 8 | low)
    if added:
        is_gray = high == low
        image = image.copy()
        image[is_gray, 1:] = 0
    values = image.astype(np.float32)
    top = high.astype(np.float32)[..., None]
    values -= top
    values *= factor[..., None]
    values += top
    return to_levels(values)


@lru_cache(maxsize=16)
def saturation_table(scale: float, added: float) -> Floats:
    """New saturation over old for (largest << 8 | smallest); of a gray pixel, the new one."""
    high = np.arange(256)[:, None]
    low = np.arange(256)[None, :]
    saturation = np.clip((high - low) / np.maximum(high, 1), 0, 1)
    raised = np.clip(saturation * scale + added, 0, 1)
    factor = np.where(saturation > 0, raised / np.maximum(saturation, 1 / 255), raised)
    return factor.astype(np.float32).reshape(-1)


def largest(image: Image) -> Image:
    """The largest of the three channels, [H, W]."""
    return np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def smallest(image: Image) -> Image:
    """The smallest of the three channels, [H, W]."""
    return np.minimum(np.minimum(image[..., 0], image[..., 1]), image[..., 2])
