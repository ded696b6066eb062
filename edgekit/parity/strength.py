"""Decides which comparison of a bundle is its evidence: the one place that ranks them.

A comparison is as strong as the question it asks, whatever the outcome: trying again until it
passes achieves nothing. A new one replaces the evidence only if it answers the same question and
is weaker in no respect; all others are kept beside the evidence, dated.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

from edgekit.parity.document import ComparisonBeside, ParityDocument

MOST_BESIDE: Final = 12
"""Comparisons kept at most; the weakest are dropped first."""


@dataclass(frozen=True)
class Strength:
    """The question a comparison asks. Weaker in one respect is not stronger."""

    labeled: bool
    images: int
    """Images it may use, not those it took to decide."""
    cells: frozenset[tuple[str, int]]
    full: bool
    """Everything had to be evaluated, even if less would decide."""
    tolerance: float
    min_code_agreement: float
    max_corruption_delta: float
    min_agreement: float

    def at_least(self, other: Strength) -> bool:
        """Whether it is weaker in no respect."""
        return not self.weaknesses(other)

    def weaknesses(self, other: Strength) -> list[str]:
        """In what respects it is weaker, in words."""
        named = {
            "it has no labels": self.labeled < other.labeled,
            f"it may use {self.images:,} images, not {other.images:,}": (
                self.images < other.images
            ),
            "it leaves out corruptions or severities": not self.cells >= other.cells,
            "it may stop early, the other evaluated everything": self.full < other.full,
            f"its tolerance is {self.tolerance:g}, not {other.tolerance:g}": (
                self.tolerance > other.tolerance
            ),
            "its gate on codes is weaker or missing": (
                self.min_code_agreement < other.min_code_agreement
            ),
            "its gate on single corruptions is weaker or missing": (
                self.max_corruption_delta > other.max_corruption_delta
            ),
            "its gate on classes is weaker or missing": self.min_agreement < other.min_agreement,
        }
        return [words for words, weaker in named.items() if weaker]

    @property
    def rank(self) -> tuple[float, ...]:
        """A total order: one that is weaker in no respect never ranks lower."""
        return (
            self.labeled,
            self.images,
            len(self.cells),
            self.full,
            -self.tolerance,
            self.min_code_agreement,
            -self.max_corruption_delta,
            self.min_agreement,
        )


def strength(comparison: ParityDocument | ComparisonBeside) -> Strength:
    """How strong a comparison is."""
    gates = comparison.asked.gates
    largest = gates.max_corruption_delta
    return Strength(
        labeled=comparison.corruption_error is not None,
        images=comparison.images_available,
        cells=frozenset(
            (name, level) for name in comparison.corruptions for level in comparison.severities
        ),
        full=comparison.mode == "full",
        tolerance=gates.tolerance,
        min_code_agreement=gates.min_code_agreement or 0.0,
        max_corruption_delta=math.inf if largest is None else largest,
        min_agreement=gates.min_agreement or 0.0,
    )


def why_beside(new: ParityDocument, standing: ParityDocument) -> str | None:
    """Why a comparison does not replace the standing one; None if it may."""
    questions = {
        "on another device": (new.device, standing.device),
        "on other images": (new.data, standing.data),
        "on images corrupted in another way": (new.corrupted, standing.corrupted),
        "with another seed": (new.seed, standing.seed),
        "with another reference": (
            (new.reference, new.same_source),
            (standing.reference, standing.same_source),
        ),
        "with another baseline": _baselines(new, standing),
    }
    others = [words for words, (ours, theirs) in questions.items() if ours != theirs]
    if others:
        return f"it was made {others[0]}"
    return "; ".join(strength(new).weaknesses(strength(standing))) or None


def settle(
    standing: ParityDocument | None, new: ParityDocument, *, replace: bool = False
) -> tuple[ParityDocument, str | None]:
    """The evidence after a new comparison, and why it is not that one (None if it is).

    ``replace`` makes it the evidence, however weak; the former evidence is kept beside it.
    """
    if standing is None:
        return new, None
    looks = standing.looks + 1
    why = None if replace else why_beside(new, standing)
    if why is not None:
        beside = _with(standing.beside, new.beside_evidence(why))
        return dataclasses.replace(standing, looks=looks, beside=beside), why
    beside = tuple(run for run in standing.beside if not _same(run, new))
    if not _same(standing, new):
        beside = _with(beside, standing.beside_evidence("another comparison replaced it"))
    return dataclasses.replace(new, looks=looks, beside=beside), None


def _with(
    runs: tuple[ComparisonBeside, ...], run: ComparisonBeside
) -> tuple[ComparisonBeside, ...]:
    """The comparisons with one added; a repeated one replaces its predecessor."""
    others = [other for other in runs if not _same(other, run)]
    ordered = sorted([run, *others], key=lambda one: strength(one).rank, reverse=True)
    return tuple(ordered[:MOST_BESIDE])


def _same(one: ParityDocument | ComparisonBeside, other: ParityDocument | ComparisonBeside) -> bool:
    return (one.asked, one.device, one.data) == (other.asked, other.device, other.data)


def _baselines(new: ParityDocument, standing: ParityDocument) -> tuple[str, str]:
    """What each mean is normalized by; equal if a comparison without labels has none."""
    ours, theirs = new.corruption_error, standing.corruption_error
    return ("", "") if ours is None or theirs is None else (ours.baseline, theirs.baseline)
