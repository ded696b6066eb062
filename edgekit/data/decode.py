"""Decodes image files to RGB, uint8 [H, W, 3], the same way for every source.

- The EXIF orientation is applied.
- Gray and palette images become RGB; animations give their first frame.
- Transparent pixels are composited on black: a color that nobody sees must not count.
- 16-bit samples keep their high byte (that is what Pillow does for 16-bit color, so gray
  follows it). 32-bit samples have no fixed range and are refused.
- CMYK is converted without a color profile; profiles of RGB images are ignored too, as
  torchvision and OpenCV do.
"""

from __future__ import annotations

import io
import struct
import warnings
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

# Only these decoders see user files: some of Pillow's others start external programs. Importing
# a plugin registers it, which `Image.open(formats=...)` does not do by itself.
FORMATS = (
    BmpImagePlugin.BmpImageFile.format,
    GifImagePlugin.GifImageFile.format,
    JpegImagePlugin.JpegImageFile.format,  # MPO, the JPEG of many phones, included
    PngImagePlugin.PngImageFile.format,
    PpmImagePlugin.PpmImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)
# What Pillow itself refuses outright; 1 GB of memory while decoding.
MAX_PIXELS = 178_956_970

_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's parsers raise on damaged files, besides OSError.
_PARSE_ERRORS = (SyntaxError, ValueError, OverflowError, EOFError, struct.error)


class BadImage(UsageError):
    """One image cannot be read; evaluation stops on it, training leaves it out and counts it."""


def decode_file(path: Path) -> NDArray[np.uint8]:
    """Decode the file ``path``."""
    try:
        with path.open("rb") as stream:
            return decode(stream, str(path))
    except OSError as error:
        raise BadImage(f"cannot read image {path}: {error.strerror or error}") from error


def decode_bytes(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the content of an image file; ``name`` is what error messages call it."""
    return decode(io.BytesIO(data), name)


def decode(stream: BinaryIO, name: str) -> NDArray[np.uint8]:
    """Decode an open image file; ``name`` is what error messages call it."""
    # Warnings about odd metadata or large images: the pixels either decode or they do not.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _too_large(name, f"{width} x {height}")
                image.load()  # a damaged file fails here at the latest
                return np.array(_upright(_rgb(image, name), image))
        except Image.DecompressionBombError as error:
            raise _too_large(name, "too many") from error
        except UnidentifiedImageError as error:
            formats = ", ".join(FORMATS)
            raise BadImage(
                f"{name} is not an image that edgekit reads ({formats}), or its start is damaged"
            ) from error
        except (OSError, *_PARSE_ERRORS) as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise BadImage(f"{name} is corrupt or truncated: {detail}") from error


def _too_large(name: str, pixels: str) -> BadImage:
    return BadImage(f"{name} has {pixels} pixels, more than {MAX_PIXELS}: make it smaller")


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


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """``rgb`` turned as the EXIF data of ``image``, which it came from, say."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except (OSError, *_PARSE_ERRORS):
        return rgb  # damaged metadata beside intact pixels: nothing says that it lies on its side
    transposition = _TRANSPOSITIONS.get(orientation) if isinstance(orientation, int) else None
    return rgb if transposition is None else rgb.transpose(transposition)
