"""The five frost textures: generated, or the reference's photographs from the user's folder.

The photographs that the reference blends over images carry no license or origin, so edgekit
does not ship them. It grows its own frost: feathery crystals of many sizes, given the octave
spectrum and the color distribution that were measured on the photographs. Strength, texture scale
and difficulty are the reference's, the pattern is not.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.data.corruptions.common import Floats, Image
from edgekit.data.corruptions.random_fields import Draws, KeyedDraws, Reals

COUNT = 5  # the reference has a sixth photograph and never draws it
_HEIGHT, _WIDTH = 512, 768
_TWIG_GAP = 5  # pixels
_LIGHT = 1.5  # pixels of the coarsest octave over which light changes
_SUBPIXEL_BITS = 4  # fractional bits of OpenCV's line coordinates
_SHRUNK = {224: 1.0, 64: 0.3, 32: 0.2}  # textures shrink with the image size of the table

# Red, green and blue levels at these shares of the pixels of each photograph (the second and
# third are the same picture), each pixel counted as often as 224 px crops hold it.
_SHARES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
_WHITE = (
    (55, 137, 160, 187, 201, 212, 225, 232, 253),
    (56, 139, 163, 191, 206, 217, 230, 237, 255),
    (60, 145, 170, 200, 215, 227, 240, 246, 255),
)
_COLORS = (
    (
        (15, 29, 38, 56, 72, 95, 131, 154, 201),
        (99, 116, 123, 136, 146, 158, 177, 189, 230),
        (115, 135, 141, 153, 164, 174, 189, 200, 235),
    ),
    _WHITE,
    _WHITE,
    (
        (15, 73, 99, 129, 146, 161, 187, 215, 251),
        (24, 87, 114, 144, 161, 176, 202, 230, 255),
        (31, 97, 125, 156, 174, 190, 217, 246, 255),
    ),
    (
        (14, 34, 46, 73, 96, 125, 171, 206, 255),
        (25, 45, 57, 84, 108, 136, 181, 214, 255),
        (36, 57, 69, 97, 120, 148, 191, 222, 255),
    ),
)
# The standard deviation that each octave is given, from finest to coarsest. Coloring and adding up
# change them; what comes out has the octaves of the photographs, in proportion.
_OCTAVES = (
    (7.4, 3.6, 2.4, 2.4, 2.9, 6.8, 12.3),
    (8.7, 7.1, 6.1, 2.9, 3.1, 4.1, 14.4),
    (8.6, 7.0, 6.1, 2.9, 2.9, 4.4, 12.5),
    (14.4, 10.6, 6.9, 3.8, 2.0, 5.6, 17.9),
    (16.9, 16.0, 14.1, 10.4, 7.1, 3.3, 35.9),
)


@lru_cache(maxsize=3 * COUNT)
def texture(which: int, table: int, folder: Path | None) -> Image:
    """Texture ``which`` (0 to 4) as uint8 RGB, at the scale of a parameter table."""
    full = generated(which) if folder is None else photograph(which, folder)
    factor = _SHRUNK[table]
    if factor == 1:
        return full
    shrunk: Image = cv2.resize(full, (0, 0), fx=factor, fy=factor)
    return shrunk


def enlarged_to_hold(full: Image, height: int, width: int) -> Image:
    """The texture itself if an image fits in with room to move, else enlarged until it does."""
    factor = max((height + 1) / full.shape[0], (width + 1) / full.shape[1])
    if factor <= 1:
        return full
    size = (math.ceil(full.shape[1] * factor), math.ceil(full.shape[0] * factor))
    enlarged: Image = cv2.resize(full, size, interpolation=cv2.INTER_CUBIC)
    return enlarged


def photograph(which: int, folder: Path) -> Image:
    """frost1 ... frost5 (.png, .jpg or .jpeg) of the user's folder as uint8 RGB."""
    for suffix in (".png", ".jpg", ".jpeg"):
        path = folder / f"frost{which + 1}{suffix}"
        if path.is_file():
            pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if pixels is None:
                raise UsageError(f"frost texture {path} is not a readable image: replace it")
            rgb: Image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            return rgb
    raise UsageError(
        f"no frost{which + 1}.png or .jpg in {folder}: give a folder with frost1 to frost{COUNT}"
    )


@lru_cache(maxsize=COUNT)
def generated(which: int) -> Image:
    """Generated texture ``which`` (0 to 4), the same in every process; takes about 0.1 s."""
    draws = KeyedDraws(f"texture {which}", "frost", 0, 0)
    field = with_octaves(crystals(draws), _OCTAVES[which], draws)
    return colored(field, _COLORS[which])


def crystals(draws: Draws) -> Floats:
    """Overlapping ferns of ice in three sizes, as gray strokes on black."""
    canvas = np.zeros((_HEIGHT, _WIDTH), dtype=np.uint8)
    for length, count in ((140, 60), (80, 180), (40, 540)):
        base = draws.uniform((count, 2)) * (_WIDTH + length, _HEIGHT + length) - length / 2
        lean = 2 * math.pi * draws.uniform((count,))
        shade = draws.integers(60, 256, (count,))
        growth = draws.uniform((count, 2, length // _TWIG_GAP))
        for i in range(count):
            lines = fern(base[i], float(lean[i]), growth[i])
            gray = int(shade[i])
            cv2.polylines(canvas, list(lines), False, gray, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas.astype(np.float32)


def fern(base: Reals, lean: float, growth: Reals) -> NDArray[np.int32]:
    """Lines [n, 2, 2] of a stem and its twigs, which leave it at 60 degrees as ice does.

    ``growth`` [2, twigs] in 0 ... 1 says how far the twigs of either side came.
    """
    twigs = growth.shape[1]
    along = (np.arange(twigs) + 0.5) * _TWIG_GAP
    length = twigs * _TWIG_GAP
    stem = np.array([math.cos(lean), math.sin(lean)])
    joints = base + np.outer(along, stem)
    lines = [np.stack([base, base + stem * length])[None]]
    for turn, grown in zip((math.pi / 3, -math.pi / 3), growth, strict=True):
        twig = np.array([math.cos(lean + turn), math.sin(lean + turn)])
        tips = joints + np.outer((length - along) * grown, twig) * 0.6
        lines.append(np.stack([joints, tips], axis=1))
    ends: Reals = np.concatenate(lines) * (1 << _SUBPIXEL_BITS)
    return np.rint(ends).astype(np.int32)


def with_octaves(field: Floats, deviations: tuple[float, ...], draws: Draws) -> Floats:
    """``field`` with its octaves scaled to these standard deviations, finest first.

    The coarsest octave, a few pixels that tint whole regions, is drawn anew.
    """
    *details, field = octaves(field, len(deviations))
    # Smooth, as light is: what differs from pixel to pixel would be lost in making it larger.
    light = cv2.GaussianBlur(draws.normal(field.shape).astype(np.float32), (0, 0), _LIGHT)
    rebuilt = _with_deviation(light, deviations[-1])
    for detail, deviation in zip(reversed(details), reversed(deviations[:-1]), strict=True):
        rebuilt = cv2.pyrUp(rebuilt, dstsize=detail.shape[::-1])
        rebuilt += _with_deviation(detail, deviation)
    return rebuilt


def octaves(field: Floats, count: int) -> list[Floats]:
    """What each halving of the resolution loses, finest first, and what is left in the end."""
    details = []
    for _ in range(count - 1):
        coarser = cv2.pyrDown(field)
        details.append(field - cv2.pyrUp(coarser, dstsize=field.shape[::-1]))
        field = coarser
    return [*details, field]


def _with_deviation(field: Floats, deviation: float) -> Floats:
    centered = field - field.mean()
    scaled: Floats = centered * np.float32(deviation / centered.std())
    return scaled


def colored(field: Floats, colors: tuple[tuple[int, ...], ...]) -> Image:
    """uint8 RGB in which every channel has the given levels at `_SHARES` of the pixels.

    Pixels near the border are in fewer crops and count less, here as in the measurement.
    """
    low, high = float(field.min()), float(field.max())
    steps = 4096
    cell = ((field - low) * ((steps - 1) / (high - low))).astype(np.uint16)
    crops = np.outer(*(_crops_holding(side) for side in field.shape))
    count = np.bincount(cell.reshape(-1), weights=crops.reshape(-1), minlength=steps)
    share = np.cumsum(count) / count.sum()
    table: Reals = np.stack([np.interp(share, _SHARES, levels) for levels in colors], axis=1)
    return np.rint(table).astype(np.uint8).take(cell, axis=0)


def _crops_holding(side: int, crop: int = 224) -> NDArray[np.int64]:
    """How many of the crops of a line hold each of its pixels."""
    index = np.arange(side)
    return np.minimum(np.minimum(index + 1, side - 1 - index), min(crop, side - crop))
