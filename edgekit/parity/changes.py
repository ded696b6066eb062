"""Which images a comparison's two models answered differently, and the few to look at.

Only the outcomes are kept: an image's place in the data, the variant, what both models said. The
pixels can be made again from that, so a sweep stores none.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.data.corruption_grid import Cells
from edgekit.parity.answer_cache import Outputs
from edgekit.parity.sweep import ImagePair

PER_CELL: Final = 3
"""Images of a cell that are kept to be shown."""

Kind = Literal["lost", "moved", "gained", "same"]
_RANKS: Final = {"same": 0, "gained": 1, "moved": 2, "lost": 3}


class Said(NamedTuple):
    """One model's answer to one variant of an image."""

    top: int
    probability: float
    """Of that class."""
    code: tuple[int, ...] | None


@dataclass(frozen=True)
class Outcome:
    """Both models' answers to one variant of an image, and to the clean image."""

    row: int
    """Of the image in the data."""
    number: int
    """Of the variant; 0 is clean."""
    label: int | None
    reference: Said
    candidate: Said
    clean_reference: Said
    clean_candidate: Said
    drop: float
    """How much more probable the reference found its own answer than the candidate did."""

    @property
    def kind(self) -> Kind:
        """A right answer lost, a wrong one mended, another change, or none."""
        if self.reference.top == self.candidate.top:
            return "same"
        if self.label == self.reference.top:
            return "lost"
        return "gained" if self.label == self.candidate.top else "moved"

    @property
    def loss(self) -> tuple[int, float]:
        """Sorts by how bad a change is: lost answers first, then by how sure they had been."""
        return _RANKS[self.kind], self.drop


class _Best:
    """The ``most`` worst outcomes; of equal ones the earlier."""

    def __init__(self, most: int) -> None:
        self._most, self._arrived = most, 0
        self._heap: list[tuple[tuple[int, float], int, Outcome]] = []

    def add(self, outcome: Outcome) -> None:
        entry = (outcome.loss, -self._arrived, outcome)  # the second is unique
        self._arrived += 1
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def outcomes(self) -> list[Outcome]:
        return [outcome for _, _, outcome in sorted(self._heap, reverse=True)]


class Changes:
    """Counts changed answers, and keeps the worst: of all, and a few of every cell.

    ``coded``: both models look up codes in one codebook.
    """

    def __init__(self, cells: Cells, *, labeled: bool, coded: bool, most: int = 0) -> None:
        self.cells = cells
        self.labeled = labeled
        self.counts: dict[Kind, int] = dict.fromkeys(("lost", "moved", "gained", "same"), 0)
        self._coded = coded
        self._worst = _Best(most)
        self._cells = [_Best(PER_CELL) for _ in range(1 + cells.count)]
        self._first: list[list[Outcome]] = [[] for _ in range(1 + cells.count)]
        self._seen = np.zeros(1 + cells.count, np.int64)
        self._changed = np.zeros(1 + cells.count, np.int64)

    def add(self, pair: ImagePair) -> None:
        """Add an image."""
        numbers = np.array(pair.numbers)
        differs = pair.reference.top != pair.candidate.top
        self._seen[numbers] += 1
        self._changed[numbers] += differs
        self.counts["same"] += int((~differs).sum())
        changed = set(np.flatnonzero(differs).tolist())
        for place, number in enumerate(pair.numbers):
            early = len(self._first[number]) < PER_CELL
            if not early and place not in changed:
                continue
            outcome = self._outcome(pair, place)
            if early:
                self._first[number].append(outcome)
            if place in changed:
                self.counts[outcome.kind] += 1
                self._worst.add(outcome)
                self._cells[number].add(outcome)

    @property
    def changed(self) -> int:
        """Answers that differ."""
        return int(self._changed.sum())

    @property
    def answers(self) -> int:
        """All of them."""
        return int(self._seen.sum())

    def shares(self) -> NDArray[np.float64]:
        """The share of changed answers in every variant, the clean one first."""
        return np.asarray(self._changed / np.maximum(self._seen, 1), np.float64)

    def worst(self) -> list[Outcome]:
        """The changed answers to look at, the most confident loss first."""
        return self._worst.outcomes()

    def worst_of(self, number: int) -> list[Outcome]:
        """The same of one variant."""
        return self._cells[number].outcomes()

    def first_of(self, number: int) -> list[Outcome]:
        """The first images that went through a variant; their order was drawn by the seed."""
        return list(self._first[number])

    def _outcome(self, pair: ImagePair, place: int) -> Outcome:
        top = int(pair.reference.top[place])
        before, after = (side.log_p[place, top] for side in (pair.reference, pair.candidate))
        return Outcome(
            row=pair.row,
            number=pair.numbers[place],
            label=pair.label if self.labeled else None,
            reference=self._said(pair.reference, place),
            candidate=self._said(pair.candidate, place),
            clean_reference=self._said(pair.reference, 0),
            clean_candidate=self._said(pair.candidate, 0),
            drop=float(np.exp(np.float64(before)) - np.exp(np.float64(after))),
        )

    def _said(self, outputs: Outputs, place: int) -> Said:
        top = int(outputs.top[place])
        code = None
        if self._coded and outputs.code is not None:
            code = tuple(np.atleast_1d(outputs.code[place]).reshape(-1).tolist())
        return Said(top, float(np.exp(np.float64(outputs.log_p[place, top]))), code)
