"""What a bundle's calibration.json says about its calibration, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Final

from edgekit.bundle.store import Bundle
from edgekit.core.documents import Document, parse_json, read

FILE: Final = "calibration.json"
_REMEDY: Final = "build the bundle again"


@dataclass(frozen=True)
class RecipeFacts:
    """The part of a recipe that the page tells."""

    description: str = ""
    statistics: str = ""
    rounding: str = ""
    bias_correction: str = ""


@dataclass(frozen=True)
class Image:
    """The part of an image's entry that the page counts."""

    corruption: str | None = None


@dataclass(frozen=True)
class Calibration(Document):
    """`edgekit.quantize.calibration_images.ImageList`, as far as the page reads it."""

    SCHEMA: ClassVar = 1

    seed: int
    images: tuple[Image, ...]
    recipe: RecipeFacts = field(default_factory=RecipeFacts)

    def describe(self) -> str:
        """One line."""
        counts = Counter(image.corruption is not None for image in self.images)
        how = ", ".join(
            f"{what}: {value}"
            for what, value in (
                ("ranges", self.recipe.statistics),
                ("rounding", self.recipe.rounding),
                ("bias correction", self.recipe.bias_correction),
            )
            if value
        )
        text = f"{counts[False]} clean and {counts[True]} corrupted images, seed {self.seed}"
        return "; ".join(part for part in (text, self.recipe.description, how) if part)


def read_calibration(bundle: Bundle) -> Calibration | None:
    """The bundle's list of calibration images; None for one that has none."""
    if FILE not in bundle.manifest.files:
        return None
    source = f"{bundle.path}: {FILE}"
    value = parse_json((bundle.folder / FILE).read_bytes(), source)
    if isinstance(value, dict):
        value = {"schema": Calibration.SCHEMA, **value}  # earlier releases wrote none
    return read(Calibration, value, source, schema=Calibration.SCHEMA, remedy=_REMEDY)
