"""Gaussian, glass, defocus, motion and zoom blur."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.data.corruptions.common import Floats, Image, Level, gaussian, to_levels
from edgekit.data.corruptions.common import motion_blur as blur_along
from edgekit.data.corruptions.random_fields import Draws

# Standard deviation in pixels.
_GAUSSIAN = {
    224: (1, 2, 3, 4, 6),
    64: (0.5, 0.75, 1, 1.25, 1.5),
    32: (0.4, 0.6, 0.7, 0.8, 1),
}
# Standard deviation of the two blurs in pixels, farthest neighbour in pixels, rounds.
_GLASS = {
    224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
}
# Radius of the disk and standard deviation of its soft edge, in pixels.
_DEFOCUS = {
    224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
}
# Half length and standard deviation in pixels.
_MOTION = {
    224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
}
# End and step of np.arange from 1, whose rounding decides whether the end is one of the zooms.
_ZOOM_64 = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
_ZOOM = {
    224: ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    64: _ZOOM_64,
    32: _ZOOM_64,
}


def gaussian_blur(image: Image, level: Level, draws: Draws) -> Image:
    """Convolves with a Gaussian."""
    return to_levels(gaussian(image, _GAUSSIAN[level.table][level.severity - 1]))


def glass_blur(image: Image, level: Level, draws: Draws) -> Image:
    """Blurs, scatters the pixels over their neighbourhood, and blurs again."""
    sigma, reach, rounds = _GLASS[level.table][level.severity - 1]
    soft = to_levels(gaussian(image, sigma))
    height, width = image.shape[:2]
    origin = np.arange(height * width, dtype=np.int32)
    for _ in range(rounds):
        origin = origin.take(scatter(height, width, reach, draws))
    scattered = soft.reshape(-1, 3).take(origin, axis=0).reshape(image.shape)
    return to_levels(gaussian(scattered, sigma))


def scatter(height: int, width: int, reach: int, draws: Draws) -> NDArray[np.int32]:
    """For every pixel, the flat index of the pixel that one round of glass puts there.

    The reference walks from the last pixel to the first and *copies* into each a neighbor at
    most ``reach`` away (its swap is none: both names are views of one array). A neighbor later
    in the image was overwritten before, so its value came from elsewhere in turn: these links
    are followed to their end for all pixels at once, each jump doubling the way. Every second
    neighbor is a later one, so the longest chain has some log2(pixels) links: five jumps.
    """
    rows, columns = height - 2 * reach, width - 2 * reach
    origin = np.arange(height * width, dtype=np.int32)
    if rows <= 0 or columns <= 0:
        return origin
    offset = draws.integers(-reach, reach, (rows * columns, 2)).astype(np.int32, copy=False)
    step = (offset[:, 1] * width + offset[:, 0]).reshape(rows, columns)[::-1, ::-1]
    moved = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    origin.reshape(height, width)[moved] += step

    pixel = np.arange(height * width, dtype=np.int32)
    is_moved = np.zeros((height, width), dtype=bool)
    is_moved[moved] = True
    overwritten_before = (origin > pixel) & is_moved.reshape(-1).take(origin)
    link = np.where(overwritten_before, origin, pixel)
    while True:
        farther = link.take(link)
        if np.array_equal(farther, link):
            return origin.take(link)
        link = farther


def defocus_blur(image: Image, level: Level, draws: Draws) -> Image:
    """Convolves with a disk."""
    radius, edge = _DEFOCUS[level.table][level.severity - 1]
    blurred: Floats = cv2.filter2D(image.astype(np.float32), -1, disk(radius, edge))
    return to_levels(blurred)


@lru_cache(maxsize=16)
def disk(radius: float, edge: float) -> Floats:
    """The reference's disk: on a 17 px square up to radius 8, else on one that it just fills.

    Radius 8 and above reach the rim of the square, where the softening mirrors it: these disks
    weigh 1.013 and 1.011 in all and brighten the image by as much, as published. The empty rim
    of smaller ones is cut off, which changes nothing but the time of the convolution.
    """
    half, window = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    flat = (x * x + y * y <= radius * radius).astype(np.float32)
    soft = cv2.GaussianBlur(flat / flat.sum(), (window, window), sigmaX=edge)
    rim = int(np.flatnonzero(soft.max(axis=1) > 1e-12)[0])
    return np.ascontiguousarray(soft[rim : len(soft) - rim, rim : len(soft) - rim])


def motion_blur(image: Image, level: Level, draws: Draws) -> Image:
    """Moves the camera along a line within 45 degrees of horizontal."""
    radius, sigma = _MOTION[level.table][level.severity - 1]
    angle = -45 + 90 * float(draws.uniform((1,))[0])
    return blur_along(image, radius, sigma, angle)


def zoom_blur(image: Image, level: Level, draws: Draws) -> Image:
    """Averages the image (twice) with itself at growing magnification."""
    end, step = _ZOOM[level.table][level.severity - 1]
    total = image.astype(np.float32)
    pixels = total.copy()
    zooms = np.arange(1, end, step)
    for zoom in zooms:
        total += clipped_zoom(pixels, float(zoom))
    total /= len(zooms) + 1
    return to_levels(total)


def clipped_zoom(pixels: Floats, zoom: float) -> Floats:
    """The center of a [H, W] or [H, W, C] image magnified to its own size, bilinear.

    As in scipy.ndimage.zoom the first and last pixel of the crop map onto the first and last
    of the enlarged crop, which is then trimmed to the image's size.
    """
    height, width = pixels.shape[:2]
    row_step, row_start = _zoom_axis(height, zoom)
    column_step, column_start = _zoom_axis(width, zoom)
    if row_step == 1 and column_step == 1:
        return pixels
    matrix = np.array([[column_step, 0, column_start], [0, row_step, row_start]])
    magnified: Floats = cv2.warpAffine(
        pixels,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return magnified


def _zoom_axis(side: int, zoom: float) -> tuple[float, float]:
    """Source coordinate of output pixel i as (step, start): start + i * step."""
    crop = math.ceil(side / zoom)
    enlarged = round(crop * zoom)
    step = (crop - 1) / (enlarged - 1)
    return step, (side - crop) // 2 + (enlarged - side) // 2 * step
