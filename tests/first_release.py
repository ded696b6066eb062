"""A bundle that the first release built; tests/fixtures/first_release/README.md says how."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

FOLDER: Final = Path(__file__).parent / "fixtures" / "first_release"
ZIP: Final = FOLDER / "bundle.zip"
FLOAT: Final = FOLDER / "float.onnx"
"""The float graph that it was made from."""
CLASSES: Final = ("dark", "middle", "bright")
DATA: Final = "levels.npz"
"""What the bundle says that its images are, in the folder where it was built."""


def unpacked(folder: Path) -> Path:
    """The bundle as a folder that may be changed."""
    path = folder / "first-release"
    shutil.unpack_archive(ZIP, path)
    return path


def images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of that part of its data, and their labels."""
    arrays = _arrays()
    return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def write_data(folder: Path) -> None:
    """Its data, under the name that it knows them by."""
    np.savez(folder / DATA, **_arrays())


def _arrays() -> dict[str, Any]:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array(CLASSES)}
    for split, count in (("train", 48), ("val", 15), ("calib", 12), ("test", 15)):
        labels = np.arange(count) % len(CLASSES)
        noise = random.integers(-40, 41, (count, 32, 32, 3))
        level = 60 + 70 * labels[:, None, None, None]
        arrays[f"{split}_images"] = (level + noise).astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    return arrays
