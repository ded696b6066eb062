"""What a model's answers look like in the lab: on clean images, and under each known corruption.

An image becomes one *symbol*: the codeword that was chosen, together with how clear the choice was
(the lookup's margin in a few bins). A model without a codebook has its predicted class and that
class's probability instead. `FieldReference` counts symbols; it is made with the bundle, from
images that its monitor will never be tried on, and from the answers of the bundle itself: an INT8
model chooses other codewords than its float original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.core.documents import Document, read
from edgekit.core.errors import UsageError
from edgekit.runtime.answers import Answers, join

BINS: Final = 4  # of the margin: quarters of the clean images
_MANY: Final = 4096  # codewords; from there on the codeword alone is enough to tell images by
_LARGEST: Final = 8_000_000  # symbols times cells: tables of a few hundred megabytes
_REMEDY: Final = "build the bundle again"

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """A kind of images, and the model's answers to them."""

    corruption: str  # "" for clean images
    severity: int  # 0 for clean images
    images: int
    wrong: int | None  # None if the images have no labels
    symbols: tuple[int, ...]  # those that occurred, ascending
    counts: tuple[int, ...]  # how often, in the same order

    def __post_init__(self) -> None:
        """Refuse what cannot be counts."""
        if len(self.symbols) != len(self.counts) or sum(self.counts) != self.images:
            raise UsageError("its counts do not add up to its images")
        if self.images < 1 or min(self.counts, default=0) < 1:
            raise UsageError("its counts must be positive")

    @property
    def name(self) -> str:
        """For people."""
        if not self.corruption:
            return "clean"
        return f"{self.corruption.replace('_', ' ')}, severity {self.severity}"

    def dense(self, size: int) -> Ints:
        """Counts of all ``size`` symbols."""
        counts = np.zeros(size, np.int64)
        counts[list(self.symbols)] = self.counts
        return counts


@dataclass(frozen=True)
class FieldReference(Document):
    """``field.json``."""

    SCHEMA: ClassVar = 1

    kind: Literal["code", "class"]
    size: int  # codewords, or classes
    classes: int
    edges: tuple[float, ...]  # between the bins of the margin, or of the top probability
    normal: Cell  # clean images that the stream is compared with, and nothing else is made of
    clean: Cell  # other clean images: they and their corrupted variants tell what to bet on
    cells: tuple[Cell, ...]
    # Of all clean images: the predicted class and the codeword together, for telling a change of
    # the mix of classes from a change within classes.
    joint: tuple[tuple[int, int, int], ...]  # class, codeword, count

    def __post_init__(self) -> None:
        """Refuse numbers that point outside."""
        if not (1 <= self.size <= 1 << 20 and 1 <= self.classes <= 1 << 20):
            raise UsageError("it has an impossible number of codewords or classes")
        if self.symbols * len(self.cells) > _LARGEST:
            raise UsageError("it has too many codewords and cells for a monitor")
        for cell in (self.normal, self.clean, *self.cells):
            if cell.symbols and not 0 <= min(cell.symbols) <= max(cell.symbols) < self.symbols:
                raise UsageError(f"{cell.name}: a symbol is outside 0 to {self.symbols - 1}")
        for label, code, count in self.joint:
            if not (0 <= label < self.classes and 0 <= code < self.size and count > 0):
                raise UsageError("its joint counts point outside")
        if list(self.edges) != sorted(self.edges):
            raise UsageError("its edges are not in order")

    @property
    def bins(self) -> int:
        """How many bins the margin has."""
        return len(self.edges) + 1

    @property
    def symbols(self) -> int:
        """How many different symbols there are."""
        return self.size * self.bins

    def symbol(self, place: int, clearness: float | None) -> int:
        """The symbol of an image: its codeword or class, and its margin or probability."""
        if not 0 <= place < self.size:
            raise UsageError(f"a {self.kind} is {place}, the reference has 0 to {self.size - 1}")
        if clearness is None or not self.edges:
            return place * self.bins
        return place * self.bins + int(np.searchsorted(self.edges, clearness, side="right"))

    @classmethod
    def from_dict(cls, value: object, source: str) -> FieldReference:
        """Read it, checked."""
        return read(cls, value, source, schema=FieldReference.SCHEMA, remedy=_REMEDY)


def places(answers: Answers, kind: Literal["code", "class"]) -> tuple[Ints, NDArray[np.float64]]:
    """Codeword (or class) and margin (or top probability) of each image."""
    if kind == "code":
        assert answers.code is not None
        clearness = answers.margin
        if clearness is None:
            clearness = np.zeros(len(answers.code), np.float32)
        return answers.code.astype(np.int64), clearness.astype(np.float64)
    logits = answers.logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1), powers.max(axis=1) / powers.sum(axis=1)


def kind_of(answers: Answers) -> Literal["code", "class"]:
    """Codewords where each image has one; a map of codewords has too many combinations."""
    return "code" if answers.code is not None and answers.code.ndim == 1 else "class"


def make_reference(
    normal: tuple[Answers, Ints | None],
    clean: tuple[Answers, Ints | None],
    cells: Sequence[tuple[str, int, Answers, Ints | None]],
    codebook_size: int,
) -> FieldReference:
    """From the model's answers to images of each kind, and their labels (None without any)."""
    answers = join([normal[0], clean[0]])
    kind = kind_of(answers)
    classes = answers.logits.shape[1]
    size = classes
    if kind == "code":
        codes = (each.code for each in (answers, *(given for _, _, given, _ in cells)))
        size = max(codebook_size, *(1 + int(code.max()) for code in codes if code is not None))
        if size * len(cells) > _LARGEST:
            kind, size = "class", classes
    _, clearness = places(clean[0], kind)  # not of the others: bets must not depend on them
    edges = sorted(set(np.quantile(clearness, np.arange(1, BINS) / BINS).tolist()))
    if clearness.min() == clearness.max() or size > _MANY:
        edges = []

    def cell(corruption: str, severity: int, given: Answers, labels: Ints | None) -> Cell:
        place, clearness = places(given, kind)
        symbol = place * (len(edges) + 1) + np.searchsorted(edges, clearness, side="right")
        symbols, counts = np.unique(symbol, return_counts=True)
        wrong = None if labels is None else int((given.logits.argmax(axis=1) != labels).sum())
        return Cell(
            corruption, severity, len(symbol), wrong, tuple(symbols.tolist()),
            tuple(counts.tolist()),
        )  # fmt: skip

    pairs, counts = np.unique(
        np.stack([answers.logits.argmax(axis=1), places(answers, kind)[0]], axis=1),
        axis=0,
        return_counts=True,
    )
    joint = tuple(
        (int(label), int(code), int(count))
        for (label, code), count in zip(pairs, counts, strict=True)
    )
    return FieldReference(
        kind, size, classes, tuple(edges), cell("", 0, *normal), cell("", 0, *clean),
        tuple(cell(*each) for each in cells), joint,
    )  # fmt: skip
