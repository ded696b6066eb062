"""Decodes image files to RGB, uint8 [H, W, 3], the same way for every source.

- The EXIF orientation is applied.
- Gray and palette images become RGB; animations give their first frame.
- Transparent pixels are composited on black: an invisible color must not count.
- 16-bit samples keep their high byte (as Pillow does for 16-bit color, so gray does the same).
  32-bit samples have no fixed range and are refused.
- CMYK is converted without a color profile; profiles of RGB images are ignored as well, as in
  torchvision and OpenCV.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from edgekit.core.errors import UsageError
from edgekit.core.files import open_regular
from edgekit.core.limits import check_size

# Only these decoders read user files, because some of Pillow's others start external programs.
# Importing a plugin registers it, which `Image.open(formats=...)` alone does not.
FORMATS = (
    BmpImagePlugin.BmpImageFile.format,
    GifImagePlugin.GifImageFile.format,
    JpegImagePlugin.JpegImageFile.format,  # MPO, the JPEG of many phones, included
    PngImagePlugin.PngImageFile.format,
    PpmImagePlugin.PpmImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)
# Pillow takes at most four bytes per pixel, the result three.
_BYTES_PER_PIXEL = 7
_STRIP_PIXELS = 1 << 20

_ORIENTATION_TAG = 0x0112
_TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p[::-1].transpose(1, 0, 2),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p[:, ::-1].transpose(1, 0, 2),
}
# What Pillow's parsers raise on damaged files, besides OSError.
_PARSE_ERRORS = (
    *(SyntaxError, ValueError, OverflowError, EOFError, struct.error),
    *(MemoryError, TypeError, KeyError, IndexError),
)


class BadImage(UsageError):
    """One image cannot be read; evaluation stops on it, training leaves it out and counts it."""


def decode_file(path: Path) -> NDArray[np.uint8]:
    """Decode the file ``path``."""
    try:
        with open_regular(path) as stream:
            return decode(stream, str(path))
    except OSError as error:
        raise BadImage(f"cannot read image {path}: {error.strerror or error}") from error


def decode_bytes(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the content of an image file; ``name`` is its name in error messages."""
    return decode(io.BytesIO(data), name)


def decode(stream: BinaryIO, name: str) -> NDArray[np.uint8]:
    """Decode an open image file; ``name`` is its name in error messages."""
    # Warnings about odd metadata or large images are noise: the pixels decode or they do not.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=FORMATS) as image:
                width, height = image.size
                check_size(
                    width * height * _BYTES_PER_PIXEL,
                    f"{name}, {width} x {height} pixels,",
                    BadImage,
                    hint="make it smaller; ",
                )
                image.load()  # a damaged file fails here at the latest
                return pixels_of(image, name)
        except Image.DecompressionBombError as error:
            raise BadImage(
                f"{name} has more pixels than Pillow accepts: make it smaller"
            ) from error
        except UnidentifiedImageError as error:
            formats = ", ".join(FORMATS)
            raise BadImage(
                f"{name} is not an image that edgekit reads ({formats}), or its start is damaged"
            ) from error
        except (OSError, *_PARSE_ERRORS) as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise BadImage(f"{name} is corrupt or truncated: {detail}") from error


def jpeg_step(data: bytes) -> int | None:
    """The step of a JPEG's luma DC coefficients, from its header; None for anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            jpeg = (JpegImagePlugin.JpegImageFile.format,)
            with Image.open(io.BytesIO(data), formats=jpeg) as image:
                tables = getattr(image, "quantization", {})
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, *_PARSE_ERRORS):
            return None
    return int(tables[0][0]) if tables.get(0) else None


def pixels_of(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """A loaded Pillow image as RGB, composited and upright.

    It is converted in strips: copies of the whole would take several times the image's memory.
    """
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        below = min(height, top + rows)
        strip = image if rows >= height else image.crop((0, top, width, below))
        strip.format = image.format
        pixels[top:below] = np.asarray(_rgb(strip, name))
    return _upright(pixels, image)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        # Older Pillow releases open 16-bit PNG as "I"; 16-bit PPM is "I" in all of them.
        high = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise BadImage(f"{name} has 32-bit samples: convert it to 8 or 16 bits per channel")
    if mode == "LAB":
        raise BadImage(f"{name} is a LAB image: convert it to RGB")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, with_alpha).convert("RGB")
    return image.convert("RGB")


def _upright(pixels: NDArray[np.uint8], image: Image.Image) -> NDArray[np.uint8]:
    """``pixels`` rotated as the EXIF data of their ``image`` says."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except (OSError, *_PARSE_ERRORS):
        return pixels  # intact pixels with damaged metadata: take them as upright
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))
