"""What one image is put through: clean, and every corruption at every severity.

Either corrupted in memory, at the network's size, or read from the published ImageNet-C layout.
The two are not comparable (the published files were resized and stored as JPEG), so every report
names its kind.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset
from edgekit.data.corruptions import BENCHMARK15, EXTRA4, corrupt, parse_seen
from edgekit.data.imagenet_c import ImageNetC
from edgekit.data.transforms import Preprocessing
from edgekit.errors import UsageError

Kind = Literal["in memory", "published"]


@dataclass(frozen=True)
class Cells:
    """The corruptions and severities of a sweep, in the order of the arrays."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    kind: Kind = "in memory"
    seed: int = 0

    @property
    def count(self) -> int:
        """Cells without the clean one."""
        return len(self.corruptions) * len(self.severities)

    def names(self) -> list[str]:
        """What error messages call the variants of an image, the clean one first."""
        pairs = [(name, level) for name in self.corruptions for level in self.severities]
        return ["clean", *(f"{name} severity {level}" for name, level in pairs)]


class Variants(NamedTuple):
    """One image, ready for both models."""

    pixels: NDArray[np.uint8]  # [1 + cells, height, width, 3], clean first


def choose_cells(
    corruptions: str | None, severities: tuple[int, ...], extra: bool, seed: int
) -> Cells:
    """The sweep that the user asked for; all 15 corruptions unless named otherwise."""
    names = BENCHMARK15 if corruptions is None else parse_seen(corruptions)
    if extra:
        names = (*names, *(name for name in EXTRA4 if name not in names))
    if not names:
        raise UsageError("no corruption is left to measure: name some with --corruptions")
    levels = tuple(sorted(set(severities)))
    if not levels or not set(levels) <= {1, 2, 3, 4, 5}:
        raise UsageError(f"severities must be some of 1 to 5, not {list(severities)}")
    return Cells(names, levels, "in memory", seed)


def published_cells(data: ImageNetC, wanted: Cells) -> Cells:
    """The part of ``wanted`` that a folder in ImageNet-C's layout must hold."""
    have = set(data.cells())
    for name in wanted.corruptions:
        for level in wanted.severities:
            if (name, level) not in have:
                raise UsageError(
                    f"{data.name} has no {name}/{level}: add it, or leave it out with "
                    "--corruptions and --severities"
                )
    return Cells(wanted.corruptions, wanted.severities, "published", 0)


@dataclass(frozen=True)
class MakeVariants:
    """The loading function: runs in worker processes, one image a call."""

    preprocessing: Preprocessing
    cells: Cells

    def __call__(self, dataset: Dataset, index: int) -> Variants:
        """All variants of image ``index``."""
        clean = self.preprocessing.fit(dataset.image(index))
        pixels = np.empty((1 + self.cells.count, *clean.shape), np.uint8)
        pixels[0] = clean
        if self.cells.kind == "published":
            assert isinstance(dataset, ImageNetC)
            parts = dataset.cells()
            for place, cell in enumerate(self._pairs(), start=1):
                pixels[place] = self.preprocessing.fit(parts[cell].image(index))
            return Variants(pixels)
        identity = dataset.digest(index)
        for place, (name, level) in enumerate(self._pairs(), start=1):
            pixels[place] = corrupt(clean, name, level, image_id=identity, seed=self.cells.seed)
        return Variants(pixels)

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the pixels, beside the image itself."""
        document = {
            "preprocessing": self.preprocessing.to_dict(),
            "corruptions": self.cells.corruptions,
            "severities": self.cells.severities,
            "kind": self.cells.kind,
            "seed": self.cells.seed,
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def _pairs(self) -> list[tuple[str, int]]:
        return [(name, level) for name in self.cells.corruptions for level in self.cells.severities]
