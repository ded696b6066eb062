"""Snow, frost, fog and spatter."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgekit.data.corruptions import frost_textures
from edgekit.data.corruptions.blur import clipped_zoom
from edgekit.data.corruptions.common import Floats, Image, Level, gaussian, motion_blur, to_levels
from edgekit.data.corruptions.random_fields import Draws

# Mean and deviation of the flakes' noise, its zoom, the threshold, half length and deviation of
# the flakes' motion in pixels, and the share of the image that is not whitened.
_SNOW_64 = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
)
_SNOW = {
    224: (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    64: _SNOW_64,
    32: tuple(
        (*row[:6], share) for row, share in zip(_SNOW_64, (0.95, 0.9, 0.9, 0.85, 0.8), strict=True)
    ),
}
# Factors of the image and of the texture.
_FROST = {
    224: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    64: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    32: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
}
# Strength, and by how much the roughness falls from scale to scale.
_FOG = {
    224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
}
# Mean and deviation of the liquid's noise, its blur in pixels, the threshold, the strength of
# water or the blur of mud in pixels, and whether it is mud.
_SPATTER = {
    224: (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    64: (
        (0.62, 0.1, 0.7, 0.7, 0.6, False),
        (0.65, 0.1, 0.8, 0.7, 0.6, False),
        (0.65, 0.3, 1, 0.69, 0.6, False),
        (0.65, 0.1, 0.7, 0.68, 0.6, True),
        (0.65, 0.1, 0.5, 0.67, 0.6, True),
    ),
    32: (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
}
_WATER = (175, 238, 238)  # pale turquoise
_MUD = (63, 42, 20)  # brown


def snow(image: Image, level: Level, draws: Draws) -> Image:
    """Whitens the image and lets flakes fall, once as drawn and once turned by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, share = _SNOW[level.table][level.severity - 1]
    noise = draws.normal(image.shape[:2])
    noise *= deviation
    noise += mean
    flakes = clipped_zoom(noise.astype(np.float32, copy=False), zoom)
    flakes = np.where(flakes < threshold, np.float32(0), flakes)
    flakes *= 255
    angle = -135 + 90 * float(draws.uniform((1,))[0])
    falling = motion_blur(to_levels(flakes), radius, sigma, angle).astype(np.float32)

    pixels = image.astype(np.float32)
    white = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    white *= 1.5
    white += 127.5
    snowy = np.maximum(pixels, white[..., None])
    snowy *= 1 - share
    pixels *= share
    snowy += pixels
    snowy += (falling + falling[::-1, ::-1])[..., None]
    return to_levels(snowy)


def frost(image: Image, level: Level, draws: Draws, folder: Path | None = None) -> Image:
    """Blends a random part of one of five frost textures over the image."""
    height, width = image.shape[:2]
    which = int(draws.integers(0, frost_textures.COUNT, (1,))[0])
    texture = frost_textures.texture(which, level.table, folder)
    texture = frost_textures.enlarged_to_hold(texture, height, width)
    top = int(draws.integers(0, texture.shape[0] - height, (1,))[0])
    left = int(draws.integers(0, texture.shape[1] - width, (1,))[0])
    return frosted(image, texture[top : top + height, left : left + width], level)


def frosted(image: Image, ice: Image, level: Level) -> Image:
    """The weighted sum of an image and a texture of its size."""
    keep, cover = _FROST[level.table][level.severity - 1]
    blended: Floats = cv2.addWeighted(image, keep, ice, cover, 0, dtype=cv2.CV_32F)
    return to_levels(blended)


def fog(image: Image, level: Level, draws: Draws) -> Image:
    """Adds a fractal cloud and darkens the sum to the range the image had."""
    strength, decay = _FOG[level.table][level.severity - 1]
    height, width = image.shape[:2]
    side = level.table if level.table != 224 else 256
    while side < max(height, width):
        side *= 2
    brightest = int(image.max()) / 255
    share = brightest / (brightest + strength)
    cloud = plasma(side, decay, draws)[:height, :width]
    foggy = image.astype(np.float32)
    foggy += (cloud * (255 * strength)).astype(np.float32)[..., None]
    foggy *= share
    return to_levels(foggy)


def plasma(side: int, decay: float, draws: Draws) -> Floats:
    """A height map [side, side] in 0 ... 1 by the diamond-square algorithm, edges wrapped.

    ``side`` is a power of two. Each round puts a point into the middle of every square, then of
    every diamond, and divides the random part by ``decay``.
    """
    chance = draws.uniform((side * side - 1,)).astype(np.float32, copy=False)
    chance -= 0.5
    heights = np.zeros((1, 1), dtype=np.float32)
    wobble, used = 100.0, 0
    for _ in range(side.bit_length() - 1):
        count = heights.size
        random = chance[used : used + 3 * count].reshape(3, *heights.shape)
        random *= 2 * wobble * wobble
        used += 3 * count
        down = _plus_neighbor(heights, 0, 1)
        middle = _plus_neighbor(down, 1, 1) / 4 + random[0]
        above = (_plus_neighbor(middle, 0, -1) + _plus_neighbor(heights, 1, 1)) / 4 + random[1]
        beside = (_plus_neighbor(middle, 1, -1) + down) / 4 + random[2]
        finer = np.empty((2 * len(heights), 2 * len(heights)), dtype=np.float32)
        finer[::2, ::2] = heights
        finer[1::2, 1::2] = middle
        finer[::2, 1::2] = above
        finer[1::2, ::2] = beside
        heights = finer
        wobble /= decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _plus_neighbor(grid: Floats, axis: int, side: int) -> Floats:
    """Each value plus its next (side 1) or previous (-1) one along ``axis``, edges wrapped."""
    total = np.empty_like(grid)
    (values, result) = (grid, total) if axis == 0 else (grid.T, total.T)
    if side > 0:
        np.add(values[:-1], values[1:], out=result[:-1])
        np.add(values[-1], values[0], out=result[-1])
    else:
        np.add(values[1:], values[:-1], out=result[1:])
        np.add(values[0], values[-1], out=result[0])
    return total


def spatter(image: Image, level: Level, draws: Draws) -> Image:
    """Splashes water (severities 1 to 3) or mud (4 and 5) on the lens."""
    mean, deviation, blur, threshold, strength, is_mud = _SPATTER[level.table][level.severity - 1]
    noise = draws.normal(image.shape[:2])
    noise *= deviation
    noise += mean
    liquid = gaussian(noise.astype(np.float32, copy=False), blur)
    liquid[liquid < threshold] = 0
    if is_mud:
        return mud(image, liquid, threshold, strength)
    return water(image, liquid, strength)


def water(image: Image, liquid: Floats, strength: float) -> Image:
    """Adds pale turquoise where the liquid is, lit at its edges."""
    depth = np.minimum(liquid * 255, 255).astype(np.uint8)
    edge_distance = cv2.distanceTransform(255 - cv2.Canny(depth, 50, 150), cv2.DIST_L2, 5)
    near_edge = np.minimum(edge_distance, 20)
    relief = cv2.equalizeHist(cv2.blur(near_edge, (3, 3)).astype(np.uint8))
    slope = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shine = cv2.blur(cv2.filter2D(relief, cv2.CV_8U, slope), (3, 3)).astype(np.float32)
    shine *= depth
    brightest = float(shine.max())
    if brightest == 0:  # no drop on this image; the reference divides by 0
        return image.copy()
    wet = shine[..., None] * (np.array(_WATER, dtype=np.float32) * (strength / brightest))
    wet += image
    return to_levels(wet)


def mud(image: Image, liquid: Floats, threshold: float, softness: float) -> Image:
    """Covers the image with brown where the liquid is."""
    cover = gaussian((liquid > threshold).astype(np.float32), softness)
    cover[cover < 0.8] = 0
    dirty = cover[..., None] * (np.array(_MUD, dtype=np.float32) - image)
    dirty += image
    return to_levels(dirty)
