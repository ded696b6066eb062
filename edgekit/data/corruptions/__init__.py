"""The 19 ImageNet-C corruptions: their names, their parameter tables' sizes, and `corrupt`.

Importing this package costs nothing but numpy; OpenCV and Pillow load on the first call of
`corrupt`, so that a command can check corruption names without them.

A corrupted image is a function of its pixels, image id, corruption, severity and seed alone,
whatever the process, the order of calls or the number of workers. `docs/corruptions.md` says
how closely each corruption follows the reference implementation, and what can differ between
two releases of OpenCV or Pillow.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError

__all__ = [
    "ALL19",
    "BENCHMARK15",
    "EXTRA4",
    "SMALLEST_SIDE",
    "check_severity",
    "corrupt",
    "parse_seen",
]

BENCHMARK15: tuple[str, ...] = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The corruptions that mCE averages over, in the paper's order."""

EXTRA4: tuple[str, ...] = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The corruptions set aside for validation, which mCE leaves out."""

ALL19: tuple[str, ...] = BENCHMARK15 + EXTRA4


SMALLEST_SIDE = 8
"""Shortest side in pixels that every corruption accepts."""

_GROUPS: dict[str, tuple[str, ...]] = {
    "benchmark15": BENCHMARK15,
    "extra4": EXTRA4,
    "all19": ALL19,
}


def parse_seen(text: str) -> tuple[str, ...]:
    """Corruption names from "benchmark15", "extra4", "all19", "none" or a comma list.

    The result is in the papers' order without repeats, so that two spellings of one set are
    recorded alike.
    """
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return ()
    chosen: set[str] = set()
    for word in words:
        if word in _GROUPS:
            chosen.update(_GROUPS[word])
        elif word in ALL19:
            chosen.add(word)
        elif word == "none":
            raise UsageError(f"'none' cannot be combined with other corruptions in '{text}'")
        else:
            raise UsageError(_unknown(word, (*_GROUPS, "none", *ALL19)))
    return tuple(name for name in ALL19 if name in chosen)


def check_severity(severity: int) -> int:
    """``severity`` itself if it is an integer from 1 to 5, else a one-line error."""
    if isinstance(severity, bool) or not isinstance(severity, int | np.integer):
        raise UsageError(f"severity {severity!r} is not an integer: use 1 to 5")
    if not 1 <= severity <= 5:
        raise UsageError(f"severity {severity} does not exist: use 1 to 5")
    return int(severity)


def corrupt(
    image: NDArray[np.uint8],
    corruption: str,
    severity: int,
    *,
    image_id: str,
    seed: int = 0,
    frost_textures: Path | None = None,
) -> NDArray[np.uint8]:
    """A corrupted copy of ``image`` (uint8 RGB [H, W, 3], at least 8 px a side).

    ``image_id`` names the image whatever machine or dataset order it comes from (a relative
    path, a content hash): together with ``corruption``, ``severity`` and ``seed`` it decides
    every random draw. ``frost_textures`` is a folder with the reference's photographs
    (frost1.png ... frost5.jpg) to use for frost instead of the generated textures.
    """
    check_image(image)
    if corruption not in ALL19:
        raise UsageError(_unknown(corruption, ALL19))
    severity = check_severity(severity)
    from edgekit.data.corruptions import apply, random_fields

    return apply.apply(
        np.ascontiguousarray(image),
        corruption,
        severity,
        random_fields.KeyedDraws(image_id, corruption, severity, seed),
        frost_textures=frost_textures,
    )


def check_image(image: NDArray[Any]) -> None:
    """Refuses, in one line, what is not a uint8 RGB image of a workable size."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise UsageError(f"corruptions need uint8 pixels, got {kind}: convert the image first")
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"corruptions need an image [H, W, 3], got shape {list(image.shape)}")
    if min(image.shape[:2]) < SMALLEST_SIDE:
        height, width = image.shape[:2]
        raise UsageError(
            f"image of {height} x {width} px is too small to corrupt: "
            f"{SMALLEST_SIDE} px a side are needed"
        )


def _unknown(word: str, known: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
    return f"unknown corruption '{word}': did you mean '{nearest}'?"
