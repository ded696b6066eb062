"""Calibration recipes: which images set the activation ranges, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.data.corruptions import parse_seen
from edgekit.errors import UsageError
from edgekit.resources import resource
from edgekit.settings import nearest, read_toml

RECIPES = ("default", "robust", "fast")


@dataclass(frozen=True)
class Recipe:
    """One calibration; the file ``calib/NAME.toml`` holds what differs from these defaults."""

    description: str = ""
    images: int = 300
    # Which fraction of the images is corrupted, with what (names or a group) and how strongly.
    corrupted_share: float = 0.0
    corruptions: str = "none"
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    # performance: zero-point 0 everywhere; mixed: asymmetric activations where they pay.
    preset: Literal["performance", "mixed"] = "performance"
    bias_correction: Literal["fast", "none"] = "fast"

    def __post_init__(self) -> None:
        """Refuse what cannot be calibrated."""
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")
        if not 0 <= self.corrupted_share <= 1:
            raise UsageError(f"corrupted_share must be 0 to 1, not {self.corrupted_share}")
        names = parse_seen(self.corruptions)
        if self.corrupted_share > 0 and not names:
            raise UsageError("corrupted_share is above 0, but corruptions names none")
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise UsageError(f"severities must be some of 1 to 5, not {list(self.severities)}")


def read_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a recipe file by path."""
    if name in RECIPES:
        return read_toml(resource(f"calib/{name}.toml"), Recipe)
    path = Path(name)
    if path.suffix == ".toml":
        return read_toml(path, Recipe)
    raise UsageError(f"unknown recipe '{name}'{nearest(name, list(RECIPES))}; or give a .toml file")
