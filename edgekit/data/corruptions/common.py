"""What the corruptions share: the severity they are asked for, rounding, and filters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

JUST_BELOW = 1 / 1024
"""Gray levels by which a value may miss an integer from below and still count as it."""


class Level(NamedTuple):
    """Which column of which parameter table: severity 1 to 5 of the 224, 64 or 32 px table."""

    table: int
    severity: int


def to_levels(values: NDArray[np.floating[Any]]) -> Image:
    """Float gray levels clipped to 0 ... 255 and cut to integers, in place where possible.

    The reference cuts fractions off, it does not round. A filter over a flat area gives 99.9999
    or 100.00001 for 100, depending on the machine; `JUST_BELOW` makes that 100 everywhere.
    """
    values += JUST_BELOW
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


@lru_cache(maxsize=128)
def gaussian_kernel(sigma: float, truncate: float) -> Floats:
    """A normalized Gaussian of 2 r + 1 taps, r = truncate * sigma rounded as in scipy."""
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return np.ones(1, dtype=np.float32)
    taps = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1, dtype=np.float64) ** 2)
    taps /= taps.sum()
    return taps.astype(np.float32)


def gaussian(image: NDArray[Any], sigma: float) -> Floats:
    """Gaussian blur of a [H, W] or [H, W, C] image; the edge pixels continue outside."""
    kernel = gaussian_kernel(sigma, truncate=4.0)
    blurred: Floats = cv2.sepFilter2D(
        image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REPLICATE
    )
    return blurred


def motion_taps(radius: float, sigma: float, angle: float) -> list[tuple[int, int, float]]:
    """Taps (pixels down, pixels right, weight) of ImageMagick's motion blur.

    A half Gaussian runs from the pixel into the direction of ``angle`` (degrees), one tap for
    each pixel of way, each at the nearest whole pixel. Taps that cannot move a gray level are
    left out.
    """
    count = 2 * math.ceil(radius) + 1
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(count)]
    weights = [weight for weight in weights if weight > 1e-6]
    total = sum(weights)
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    return [
        (math.ceil(i * down - 0.5), math.ceil(i * right - 0.5), weight / total)
        for i, weight in enumerate(weights)
    ]


def motion_blur(image: Image, radius: float, sigma: float, angle: float) -> Image:
    """Motion blur of a [H, W] or [H, W, C] image; the edge pixels continue outside.

    Fractions are cut off as everywhere else. ImageMagick rounds them, which comes to 0.5 gray
    levels more in the mean and to nothing else.

    In a padded image, stored row after row, a shift is a different start: each tap is one pass
    over contiguous memory.
    """
    taps = motion_taps(radius, sigma, angle)
    above, below = max(0, -min(t[0] for t in taps)), max(0, max(t[0] for t in taps))
    left, right = max(0, -min(t[1] for t in taps)), max(0, max(t[1] for t in taps))
    padded = cv2.copyMakeBorder(image, above, below, left, right, cv2.BORDER_REPLICATE)
    height, width = image.shape[:2]
    pixel = math.prod(image.shape[2:])
    row = padded.shape[1] * pixel
    source = padded.astype(np.float32).reshape(-1)
    length = (height - 1) * row + width * pixel
    total = np.zeros(height * row, dtype=np.float32)
    target = total[:length]
    for down, across, weight in taps:
        start = (above + down) * row + (left + across) * pixel
        cv2.scaleAdd(source[start : start + length], weight, target, dst=target)
    blurred = total.reshape(height, row)[:, : width * pixel].reshape(image.shape)
    return to_levels(blurred)
