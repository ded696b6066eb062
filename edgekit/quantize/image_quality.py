"""Four plain measures of an image's quality, each monotone in the corruption that it is about.

They compare images of one size with each other; none of them is a verdict on a single image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, uniform_filter1d

Pixels = NDArray[np.uint8]  # [height, width, 3]
_Luma = NDArray[np.float32]  # [height, width]

_BLOCK = 8  # pixels: JPEG's
_BLUR = 9  # pixels that the second blur of `sharpness` averages
# A Laplacian of a Laplacian: it is blind to whatever changes linearly (Immerkaer, 1996).
_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


class Quality(NamedTuple):
    """The measures of one image."""

    sharpness: float  # 0 to 1: the share of its contrast between neighbors that blurring removes
    noise: float  # gray levels, a standard deviation
    blockiness: float  # gray levels: a step at the borders of JPEG's blocks
    exposure: float  # gray levels: the mean of its brighter half


def measure(pixels: Pixels, jpeg_step: int | None = None) -> Quality:
    """All four; ``jpeg_step`` is the DC entry of the luma table, if the image is a JPEG as stored.

    A block's mean is DC / 8, so one step of the table shifts it by an eighth as many gray levels.
    """
    luma = (pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(
        np.float32
    )
    blocks = blockiness(luma) if jpeg_step is None else jpeg_step / _BLOCK
    return Quality(sharpness(luma), noise(luma), blocks, exposure(luma))


def sharpness(luma: _Luma) -> float:
    """How much contrast between neighbors an image loses by one more blur (Crete et al., 2007).

    A sharp image loses most of it, a blurred one little. Brightness and contrast cancel out.
    """
    before = lost = 0.0
    for axis in (0, 1):
        own = np.abs(np.diff(luma, axis=axis))
        blurred = np.abs(np.diff(uniform_filter1d(luma, _BLUR, axis=axis), axis=axis))
        before += float(own.sum())
        lost += float(np.maximum(own - blurred, 0).sum())
    return lost / before if before > 0 else 0.0


def noise(luma: _Luma) -> float:
    """The standard deviation of noise, from the quarter of blocks with the least structure.

    The least of equally noisy blocks lie below the mean: of pure noise it finds four fifths.
    """
    height, width = (side // _BLOCK * _BLOCK for side in luma.shape)
    if min(height, width) == 0:
        return 0.0
    response = np.abs(convolve(luma, _NOISE_MASK, mode="reflect"))[:height, :width]
    blocks = response.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    means = np.sort(blocks.mean(axis=(1, 3)), axis=None)
    flattest = means[: max(1, means.size // 4)]
    # The mask has the norm 6, and a normal value's mean size is sqrt(2 / pi) of its deviation.
    return float(np.sqrt(np.pi / 2) / 6 * flattest.mean())


def blockiness(luma: _Luma) -> float:
    """How much more neighbors differ across the borders of JPEG's grid than right beside them."""
    excess = [_border_excess(luma, axis) for axis in (0, 1) if luma.shape[axis] >= _BLOCK + 2]
    return max(0.0, float(np.mean(excess))) if excess else 0.0


def _border_excess(luma: _Luma, axis: int) -> float:
    steps = np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis)  # from each line to the next
    at = np.arange(_BLOCK - 1, len(steps) - 1, _BLOCK)
    return float((steps[at] - (steps[at - 1] + steps[at + 1]) / 2).mean())


def exposure(luma: _Luma) -> float:
    """The mean of the brighter half: light raises it, and so does contrast."""
    values = np.sort(luma, axis=None)
    return float(values[values.size // 2 :].mean())
