"""Which comparison of a bundle is its evidence: the one place that knows what is stronger.

A comparison is as strong as what it asked for, whatever it found: nothing of the outcome counts,
so that trying again until it passes leads nowhere. Only one that answers the same question and is
weaker in nothing takes the other's place; the rest is kept beside it, dated.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

from edgekit.parity.document import ComparisonBeside, ParityDocument

MOST_BESIDE: Final = 12
"""Looks that are kept; the weakest go first."""


@dataclass(frozen=True)
class Strength:
    """What a comparison asked for. Weaker in one thing and stronger in another is not stronger."""

    labeled: bool
    images: int
    """That it might look at, not those it took to decide."""
    cells: frozenset[tuple[str, int]]
    full: bool
    """Everything was to be looked at, even if less would decide."""
    tolerance: float
    min_code_agreement: float
    max_corruption_delta: float

    def at_least(self, other: Strength) -> bool:
        """Whether it is weaker in nothing."""
        return not self.weaknesses(other)

    def weaknesses(self, other: Strength) -> list[str]:
        """In what it is weaker, for people."""
        named = {
            "it has no labels to judge by": self.labeled < other.labeled,
            f"it may look at {self.images:,} images, not at {other.images:,}": (
                self.images < other.images
            ),
            "it leaves out corruptions or severities": not self.cells >= other.cells,
            "it may stop early, the other looked at everything": self.full < other.full,
            f"its tolerance is {self.tolerance:g}, not {other.tolerance:g}": (
                self.tolerance > other.tolerance
            ),
            "its gate on codes is weaker or missing": (
                self.min_code_agreement < other.min_code_agreement
            ),
            "its gate on single corruptions is weaker or missing": (
                self.max_corruption_delta > other.max_corruption_delta
            ),
        }
        return [words for words, weaker in named.items() if weaker]

    @property
    def rank(self) -> tuple[float, ...]:
        """An order of all comparisons: whoever is weaker in nothing has no lower rank."""
        return (
            self.labeled,
            self.images,
            len(self.cells),
            self.full,
            -self.tolerance,
            self.min_code_agreement,
            -self.max_corruption_delta,
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
    )


def why_beside(new: ParityDocument, standing: ParityDocument) -> str | None:
    """Why a comparison does not take the place of the one that stands; None if it may."""
    questions = {
        "on another device": (new.device, standing.device),
        "on other images": (new.data, standing.data),
        "on images that were corrupted elsewhere": (new.corrupted, standing.corrupted),
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
    """The evidence after another look, and why that is not the new comparison (None if it is).

    ``replace`` puts it in the other's place, however weak; what stood there stays beside it.
    """
    if standing is None:
        return new, None
    looks = standing.looks + 1
    why = None if replace else why_beside(new, standing)
    if why is not None:
        beside = _with(standing.beside, new.look(why))
        return dataclasses.replace(standing, looks=looks, beside=beside), why
    beside = tuple(look for look in standing.beside if not _same(look, new))
    if not _same(standing, new):
        beside = _with(beside, standing.look("another comparison took its place"))
    return dataclasses.replace(new, looks=looks, beside=beside), None


def _with(
    looks: tuple[ComparisonBeside, ...], look: ComparisonBeside
) -> tuple[ComparisonBeside, ...]:
    """The looks with one more; a repeated one replaces itself."""
    others = [other for other in looks if not _same(other, look)]
    ordered = sorted([look, *others], key=lambda one: strength(one).rank, reverse=True)
    return tuple(ordered[:MOST_BESIDE])


def _same(one: ParityDocument | ComparisonBeside, other: ParityDocument | ComparisonBeside) -> bool:
    return (one.asked, one.device, one.data) == (other.asked, other.device, other.data)


def _baselines(new: ParityDocument, standing: ParityDocument) -> tuple[str, str]:
    """What each mean is normalized by; without labels there is none, and none is another."""
    ours, theirs = new.corruption_error, standing.corruption_error
    return ("", "") if ours is None or theirs is None else (ours.baseline, theirs.baseline)
