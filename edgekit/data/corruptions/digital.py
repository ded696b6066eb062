"""Elastic transform, pixelation and JPEG compression."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from edgekit.data.corruptions.common import Floats, Image, Level, gaussian_kernel, to_levels
from edgekit.data.corruptions.random_fields import Draws

# Strength of the local shifts, their blur, and farthest move of a corner of the affine map, in
# pixels. The 224 px table was made for 244 px by a slip of its author; it is what was published.
_ELASTIC = {
    224: (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    ),
    64: (
        (0, 0, 64 * 0.08),
        (64 * 0.05, 64 * 0.3, 64 * 0.06),
        (64 * 0.1, 64 * 0.08, 64 * 0.06),
        (64 * 0.1, 64 * 0.03, 64 * 0.03),
        (64 * 0.16, 64 * 0.03, 64 * 0.02),
    ),
    32: (
        (0, 0, 32 * 0.08),
        (32 * 0.05, 32 * 0.2, 32 * 0.07),
        (32 * 0.08, 32 * 0.06, 32 * 0.06),
        (32 * 0.1, 32 * 0.04, 32 * 0.05),
        (32 * 0.1, 32 * 0.03, 32 * 0.03),
    ),
}
# Side of the coarse image, of the original's.
_PIXELATE = {
    224: (0.6, 0.5, 0.4, 0.3, 0.25),
    64: (0.9, 0.8, 0.7, 0.6, 0.5),
    32: (0.95, 0.9, 0.85, 0.75, 0.65),
}
# JPEG quality.
_JPEG = {
    224: (25, 18, 15, 10, 7),
    64: (65, 58, 50, 40, 25),
    32: (80, 65, 58, 50, 40),
}


def elastic_transform(image: Image, level: Level, draws: Draws) -> Image:
    """Applies a random affine map, then shifts every pixel by a smooth random field."""
    strength, sigma, corner = _ELASTIC[level.table][level.severity - 1]
    height, width = image.shape[:2]
    center = np.array([height // 2, width // 2], dtype=np.float32)
    arm = min(height, width) // 3
    before = np.array(
        [center + arm, (center[0] + arm, center[1] - arm), center - arm], dtype=np.float32
    )
    moves = (draws.uniform(before.shape) * 2 - 1) * corner
    affine = cv2.getAffineTransform(before, before + moves.astype(np.float32))
    pixels = cv2.warpAffine(
        image.astype(np.float32), affine, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    if strength == 0:
        return to_levels(pixels)
    shift_x = smooth_field(draws, height, width, sigma)
    shift_y = smooth_field(draws, height, width, sigma)
    shift_x *= np.float32(strength)
    shift_y *= np.float32(strength)
    shift_x += np.arange(width, dtype=np.float32)
    shift_y += np.arange(height, dtype=np.float32)[:, None]
    moved: Floats = cv2.remap(
        pixels, shift_x, shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return to_levels(moved)


def smooth_field(draws: Draws, height: int, width: int, sigma: float) -> Floats:
    """Noise uniform in -1 ... 1 under a Gaussian of 3 sigma radius, mirrored at the edges.

    A narrow Gaussian is a filter. A wide one, up to twice the image, is cheaper as a product
    with one matrix from the left and one from the right, the mirror images folded in.
    """
    noise = draws.uniform((height, width)).astype(np.float32, copy=False)
    noise *= 2
    noise -= 1
    kernel = gaussian_kernel(sigma, truncate=3.0)
    smooth: Floats
    if len(kernel) < 32:
        smooth = cv2.sepFilter2D(noise, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    else:
        down, across = smoothing_matrix(height, sigma), smoothing_matrix(width, sigma)
        # In float64: BLAS adds in another order with another number of threads, and in float32
        # that shows.
        exact = np.matmul(np.matmul(down.astype(np.float64), noise), across.T.astype(np.float64))
        smooth = exact.astype(np.float32)
    return smooth


@lru_cache(maxsize=4)
def smoothing_matrix(side: int, sigma: float) -> Floats:
    """[side, side] matrix of a Gaussian filter over a line that is mirrored at both ends."""
    kernel = gaussian_kernel(sigma, truncate=3.0)
    radius = len(kernel) // 2
    source = np.arange(side)[:, None] + np.arange(-radius, radius + 1)
    source %= 2 * side
    source = np.where(source < side, source, 2 * side - 1 - source)
    matrix = np.zeros((side, side), dtype=np.float32)
    np.add.at(matrix, (np.arange(side)[:, None], source), kernel)
    return matrix


def pixelate(image: Image, level: Level, draws: Draws) -> Image:
    """Shrinks by averaging blocks and enlarges by repeating pixels, as Pillow's box filter."""
    share = _PIXELATE[level.table][level.severity - 1]
    height, width = image.shape[:2]
    rows, columns = int(height * share), int(width * share)
    small = PilImage.fromarray(image).resize((columns, rows), PilImage.Resampling.BOX)
    # Pixels of four bytes: NumPy repeats them as integers, three times as fast as triples.
    coarse = np.frombuffer(small.tobytes("raw", "RGBX"), dtype=np.uint32).reshape(rows, columns)
    across = coarse.take(repeated(columns, width), axis=1).view(np.uint8)
    strips: Image = cv2.cvtColor(across.reshape(rows, width, 4), cv2.COLOR_RGBA2RGB)
    return strips.take(repeated(rows, height), axis=0)


@lru_cache(maxsize=64)
def repeated(few: int, many: int) -> NDArray[np.intp]:
    """Which of ``few`` pixels each of ``many`` shows when Pillow enlarges with its box filter.

    That is the nearest one, and Pillow is asked which: two formulas that are equal on paper
    disagree where a pixel's center falls onto a border.
    """
    index = np.arange(few)
    line = np.stack([index % 256, index // 256, 0 * index], axis=1).astype(np.uint8)[None]
    shown = np.asarray(PilImage.fromarray(line).resize((many, 1), PilImage.Resampling.BOX))[0]
    source: NDArray[np.intp] = shown.astype(np.intp) @ np.array([1, 256, 0])
    return source


def jpeg_compression(image: Image, level: Level, draws: Draws) -> Image:
    """Encodes as JPEG at low quality and decodes again.

    OpenCV and Pillow both call libjpeg-turbo with the same settings: the bytes and the pixels
    are equal, and OpenCV is faster on small images.
    """
    quality = _JPEG[level.table][level.severity - 1]
    reversed_channels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", reversed_channels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    restored: Image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return restored
