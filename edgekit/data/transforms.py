"""Preprocessing: the only way from a decoded image to the network's input.

It happens in two steps, because the corruptions are applied between them, at the network's
own size, as in ImageNet-C:

    fit        uint8 [H, W, 3] of any size -> uint8 [height, width, 3]    (geometry)
    normalize  uint8 [B, height, width, 3] -> float32 [B, 3, height, width]  (numbers)

`Preprocessing` is stored with the model and read by training, calibration, parity and
prediction alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest

Resize = Literal["shortest-side", "squash"]
Interpolation = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
ChannelOrder = Literal["RGB", "BGR"]
Layout = Literal["NCHW"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# An image with a larger aspect ratio is first cut to its middle. The center crop would drop the
# rest anyway, but only after a 20,000 x 10 panorama had grown to 512,000 x 256 pixels.
_LONGEST = 16
_LARGEST = 1e30  # for any number here: integers from JSON may exceed the range of floats


@dataclass(frozen=True)
class Preprocessing:
    """How images become network input. ``mean`` and ``std`` are in gray levels, 0 to 255.

    ``resize = "shortest-side"`` keeps the aspect ratio: the image is scaled until it just covers
    ``size / crop_ratio``, and the center of that is cropped to ``size`` (for 224 x 224 and a
    ratio of 0.875 that is the usual "resize 256, center crop 224"). ``"squash"`` scales each side
    independently to that size, which loses the aspect ratio but nothing at the sides.
    """

    size: tuple[int, int] = (224, 224)  # height, width
    resize: Resize = "shortest-side"
    crop_ratio: float = 0.875
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)  # in the order of channel_order
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    channel_order: ChannelOrder = "RGB"
    layout: Layout = "NCHW"

    def __post_init__(self) -> None:
        """Refuse impossible values; accept numbers as they come from JSON or TOML."""
        size = _numbers("size", self.size, 2)
        if any(side != int(side) or not 1 <= side <= 8192 for side in size):
            raise UsageError(f"preprocessing: size must be height and width, 1 to 8192, not {size}")
        object.__setattr__(self, "size", tuple(int(side) for side in size))
        object.__setattr__(self, "mean", _numbers("mean", self.mean, 3))
        object.__setattr__(self, "std", _numbers("std", self.std, 3))
        (ratio,) = _numbers("crop_ratio", (self.crop_ratio,), 1)
        object.__setattr__(self, "crop_ratio", ratio)
        if not 0.05 <= ratio <= 1:
            raise UsageError(f"preprocessing: crop_ratio must be 0.05 to 1, not {ratio}")
        if min(self.std) <= 0:
            raise UsageError(f"preprocessing: std must be positive, not {self.std}")
        for name, kind in (
            ("resize", Resize),
            ("interpolation", Interpolation),
            ("channel_order", ChannelOrder),
            ("layout", Layout),
        ):
            value, known = getattr(self, name), list(get_args(kind))
            if value not in known:
                hint = nearest(str(value), known)
                raise UsageError(f"preprocessing: unknown {name} '{value}'{hint}")

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring one RGB image, uint8 [H, W, 3], to [height, width, 3].

        Pillow resamples: its filters widen when they shrink an image (antialiasing), which
        OpenCV's and most runtimes' do not.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UsageError(
                f"preprocessing takes uint8 images [height, width, 3], not {image.dtype} "
                f"{list(image.shape)}"
            )
        if self.resize == "shortest-side":
            image = _center(image, _LONGEST * image.shape[1], _LONGEST * image.shape[0])
        full_height, full_width = self._cover(image.shape[0], image.shape[1])
        # One axis at a time: for both at once, the order depends on Pillow's version, and the
        # rounding in between shows in the result.
        wide = _resample(image, (image.shape[0], full_width), self.interpolation)
        wide = _center(wide, image.shape[0], self.size[1])
        tall = _resample(wide, (full_height, self.size[1]), self.interpolation)
        return np.array(_center(tall, *self.size))

    def normalize(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn RGB images of the right size, uint8 [B, height, width, 3], into network input.

        Subtracts the mean, divides by the standard deviation, and puts channels first:
        float32 [B, 3, height, width].
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (*self.size, 3):
            raise UsageError(
                f"preprocessing: normalize takes uint8 [B, {self.size[0]}, {self.size[1]}, 3], "
                f"not {batch.dtype} {list(batch.shape)}"
            )
        if self.channel_order == "BGR":
            batch = batch[..., ::-1]
        result = np.empty((len(batch), 3, *self.size), np.float32)
        result[...] = batch.transpose(0, 3, 1, 2)
        result -= np.array(self.mean, np.float32).reshape(1, 3, 1, 1)
        result /= np.array(self.std, np.float32).reshape(1, 3, 1, 1)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` of it gives an equal object."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`; every key must be present, and no other."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"preprocessing: unknown key '{key}'{nearest(key, known)}")
        missing = [key for key in known if key not in values]
        if missing:
            raise UsageError(f"preprocessing: missing key '{missing[0]}'")
        return cls(**values)

    def fingerprint(self) -> str:
        """SHA-256 of everything that changes a pixel."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def _cover(self, height: int, width: int) -> tuple[int, int]:
        """The size to which a ``height`` x ``width`` image is scaled before the center crop."""
        # Rounded, because 224 / 0.875 is 256 but 96 / 0.875 is not a whole number.
        rows, columns = (max(side, round(side / self.crop_ratio)) for side in self.size)
        if self.resize == "squash":
            return rows, columns
        if height * columns >= width * rows:  # taller than the target: the width decides
            return max(rows, columns * height // width), columns
        return rows, max(columns, rows * width // height)


def _center(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle ``height`` x ``width`` of an image, which may be smaller; half to even."""
    height, width = min(height, image.shape[0]), min(width, image.shape[1])
    top = round((image.shape[0] - height) / 2)
    left = round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def _resample(
    image: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation
) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    source = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(source.resize((size[1], size[0]), _FILTERS[interpolation]))


def _numbers(name: str, values: object, count: int) -> tuple[float, ...]:
    """``count`` finite numbers as floats; anything else, such as text or null, is an error."""
    if (
        not isinstance(values, (tuple, list))
        or len(values) != count
        or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        or not all(abs(v) < _LARGEST for v in values)  # also false for NaN and infinity
    ):
        expected = "a number" if count == 1 else f"{count} numbers"
        shown = values[0] if count == 1 and isinstance(values, tuple) else values
        raise UsageError(f"preprocessing: {name} must be {expected}, not {shown!r}")
    return tuple(float(value) for value in values)


# torchvision's evaluation transform for ImageNet: resize 256, center crop 224, mean and std.
IMAGENET = Preprocessing()
# EfficientNet-Lite: bicubic, and (x - 127) / 128.
LITE0 = Preprocessing(
    interpolation="bicubic", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)
)
