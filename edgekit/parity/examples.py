"""``examples.json``: a few images of a comparison, corrupted, with what both models said to them.

A bundle keeps them beside ``parity.json``, because its page is written again after every
measurement, by commands that have no data. They are no part of the bundle's identity, and without
them (``--no-images``) nothing is missing but the pictures. Which images to show is known from the
comparison's outcomes; their pixels are made again, which gives the same ones.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from edgekit.bundle.store import Bundle
from edgekit.core.documents import Document, parse_json, read
from edgekit.core.errors import UsageError
from edgekit.data.encode import jpeg
from edgekit.data.loading import rng_for
from edgekit.parity.changes import Changes, Outcome, Said
from edgekit.parity.compare import Comparison
from edgekit.parity.document import REMEDY, ParityDocument
from edgekit.parity.predictors import named_classes

EXAMPLES: Final = "examples.json"
LONGEST: Final = 224
"""Pixels of a picture's longer side, at most."""

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


def examples_of(comparison: Comparison) -> Examples:
    """Images of the worst cell and of a random one."""
    document, changes = comparison.document, comparison.changes
    pairs, cells = changes.cells.pairs, []
    worst = _worst_cell(document, changes)
    chosen: list[tuple[Literal["worst", "random"], int]] = [("worst", worst)]
    others = [number for number in range(1, 1 + len(pairs)) if number != worst]
    if others:
        drawn = int(rng_for(document.seed, 0, "example cell").bit_generator.random_raw())
        chosen.append(("random", others[drawn % len(others)]))
    for why, number in chosen:
        corruption, severity = pairs[number - 1]
        outcomes = changes.worst_of(number) if why == "worst" else []
        cells.append(
            ExampleCell(
                why,
                corruption,
                severity,
                float(changes.shares()[number]),
                make_examples(comparison, outcomes or changes.first_of(number)),
            )
        )
    return Examples(document.measured, tuple(cells))


def make_examples(comparison: Comparison, outcomes: Sequence[Outcome]) -> tuple[Example, ...]:
    """The images of these outcomes, corrupted again as the comparison did."""
    return tuple(_example(comparison, outcome) for outcome in outcomes)


def _worst_cell(document: ParityDocument, changes: Changes) -> int:
    """The number of the cell that lost most; of equal ones that with more changed answers."""
    shares, by_name = changes.shares(), document.per_corruption or {}
    levels = changes.cells.severities

    def lost(number: int) -> tuple[float, float]:
        name, severity = changes.cells.pairs[number - 1]
        if name not in by_name:
            return 0.0, float(shares[number])
        errors, place = by_name[name].errors, levels.index(severity)
        return errors.candidate[place] - errors.reference[place], float(shares[number])

    return max(range(1, 1 + changes.cells.count), key=lost)


def _example(comparison: Comparison, outcome: Outcome) -> Example:
    sweep = comparison.sweep
    names = named_classes(sweep.candidate.classes, sweep.reference.classes)
    # Where the data have labels, these are the models' classes, under names that fit.
    names = sweep.dataset.classes if outcome.label is not None else names
    numbers = (0, outcome.number) if outcome.number else (0,)
    pixels = sweep.make(sweep.dataset, (outcome.row, numbers))
    corruption, severity = "clean", 0
    if outcome.number:
        corruption, severity = sweep.make.cells.pairs[outcome.number - 1]

    def said(answer: Said) -> Answered:
        right = None if outcome.label is None else answer.top == outcome.label
        return Answered(names[answer.top], round(answer.probability, 4), right)

    def picture(place: int, reference: Said, candidate: Said) -> Picture:
        data, width, height = jpeg(pixels[place], LONGEST)
        return Picture(
            base64.b64encode(data).decode(),
            width,
            height,
            said(reference),
            said(candidate),
            _codes(reference, candidate),
        )

    return Example(
        image=sweep.dataset.key(outcome.row),
        corruption=corruption,
        severity=severity,
        label=None if outcome.label is None else names[outcome.label],
        clean=picture(0, outcome.clean_reference, outcome.clean_candidate),
        corrupted=picture(len(numbers) - 1, outcome.reference, outcome.candidate),
    )


def _codes(reference: Said, candidate: Said) -> Codes | None:
    ours, theirs = reference.code, candidate.code
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    if len(ours) == 1:
        return Codes(same, 1, ours[0], theirs[0])
    return Codes(same, len(ours))
