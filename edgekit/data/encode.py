"""Pixels as small image files, for people to look at; nothing computes with them."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 82


class Jpeg(NamedTuple):
    """A file, and the size of its picture."""

    data: bytes
    width: int
    height: int


def jpeg(pixels: NDArray[np.uint8], longest: int) -> Jpeg:
    """RGB, uint8 [H, W, 3], as a JPEG whose longer side has at most ``longest`` pixels.

    Colors keep their full resolution: at half of it, a picture of 32 pixels looks smeared.
    """
    image = Image.fromarray(pixels)
    if max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return Jpeg(stream.getvalue(), *image.size)
