"""``examples.json``: a few images of a comparison, corrupted, with what both models said to them.

A bundle keeps them beside ``parity.json``, because its page is written again after every
measurement, by commands that have no data. They are no part of the bundle's identity, and without
them (``--no-images``) nothing is missing but the pictures. `edgekit.parity.example_images` makes
them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from edgekit.bundle.store import Bundle
from edgekit.core.documents import Document, parse_json, read
from edgekit.core.errors import UsageError
from edgekit.parity.document import REMEDY, ParityDocument

EXAMPLES: Final = "examples.json"
_MOST_BYTES: Final = 1_500_000  # of all pictures in base64: pages stay below 2 MB
_JPEG: Final = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Answered:
    """A model's answer."""

    name: str
    """Of the class."""
    probability: float
    right: bool | None
    """None without labels."""


@dataclass(frozen=True)
class Codes:
    """The codewords that both models looked up."""

    same: int
    positions: int
    reference: int | None = None
    """Its number, where there is one for the whole image."""
    candidate: int | None = None


@dataclass(frozen=True)
class Picture:
    """What both models were shown, and what they said."""

    jpeg: str
    """In base64."""
    width: int
    height: int
    reference: Answered
    candidate: Answered
    codes: Codes | None

    def __post_init__(self) -> None:
        """Refuse what is no JPEG: a page shows it."""
        if not self.data().startswith(_JPEG) or min(self.width, self.height) < 1:
            raise UsageError("a picture is no JPEG in base64")

    def data(self) -> bytes:
        """The JPEG's bytes."""
        try:
            return base64.b64decode(self.jpeg, validate=True)
        except (binascii.Error, ValueError):
            return b""


@dataclass(frozen=True)
class Example:
    """One image, clean and corrupted."""

    image: str
    """Its name in the data."""
    corruption: str
    """"clean" for an answer that changed without any."""
    severity: int
    label: str | None
    clean: Picture
    corrupted: Picture


@dataclass(frozen=True)
class ExampleCell:
    """A corruption at a severity."""

    why: Literal["worst", "random"]
    corruption: str
    severity: int
    changed: float
    """The share of answers there that changed."""
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Examples(Document):
    """Images of the cell that lost most, and of one drawn by the seed."""

    SCHEMA: ClassVar = 1

    measured: str
    """When, as the comparison that they belong to says."""
    cells: tuple[ExampleCell, ...]

    def __post_init__(self) -> None:
        """Refuse more than a page can show."""
        shown = [one for cell in self.cells for one in cell.examples]
        if sum(len(one.clean.jpeg) + len(one.corrupted.jpeg) for one in shown) > _MOST_BYTES:
            raise UsageError(f"its pictures take more than {_MOST_BYTES:,} bytes")

    @staticmethod
    def from_dict(value: object, source: str) -> Examples:
        """The stored document; ``source`` is what error messages call it."""
        return read(Examples, value, source, schema=Examples.SCHEMA, remedy=REMEDY)


def read_examples(bundle: Bundle, parity: ParityDocument | None) -> Examples | None:
    """The images of a bundle's evidence; None if it has none, or those of another comparison."""
    if parity is None or EXAMPLES not in bundle.manifest.files:
        return None
    source = f"{bundle.path}: {EXAMPLES}"
    value = parse_json((bundle.folder / EXAMPLES).read_bytes(), source)
    examples = Examples.from_dict(value, source)
    return examples if examples.measured == parity.measured else None
