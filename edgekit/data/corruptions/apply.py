"""Runs one corruption on an image with a given source of random draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekit.data.corruptions import blur, color, digital, noise, weather
from edgekit.data.corruptions.common import Image, Level
from edgekit.data.corruptions.random_fields import Draws
from edgekit.data.corruptions.tables import table_for

_FUNCTIONS: dict[str, Callable[[Image, Level, Draws], Image]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "fog": weather.fog,
    "brightness": color.brightness,
    "contrast": color.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": color.saturate,
}


def apply(
    image: Image,
    corruption: str,
    severity: int,
    draws: Draws,
    *,
    frost_textures: Path | None = None,
) -> Image:
    """The corrupted copy of a contiguous uint8 RGB image, with the table that fits its size."""
    height, width = image.shape[:2]
    level = Level(table_for((height, width)), severity)
    if corruption == "frost":
        return weather.frost(image, level, draws, frost_textures)
    return _FUNCTIONS[corruption](image, level, draws)
