"""How often each two of several models choose the same class, and which one stands out."""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import numpy as np

from edgekit.core.errors import EdgekitError
from edgekit.metrics.confidence_sequence import SequentialDelta
from edgekit.metrics.intervals import Interval, agreement_interval
from edgekit.parity.sweep import ImageAnswers

Kind = Literal["clean", "corrupted"]
KINDS: tuple[Kind, ...] = ("corrupted", "clean")
ERRORS = 0.05  # all intervals that look for the odd one out hold at once, but for this share


class Odd(NamedTuple):
    """The model that the others contradict, and on which images they do."""

    model: int
    kind: Kind


class Agreements:
    """Sums over images for every pair of models; the unit is the image, as everywhere.

    An image's agreement over its corrupted variants is one figure of it.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self.pairs = list(itertools.combinations(range(len(names)), 2))
        self._same: dict[Kind, list[list[float]]] = {kind: [] for kind in KINDS}

    def add(self, image: ImageAnswers) -> None:
        """Add an image."""
        tops = [outputs.top for outputs in image.outputs]
        for name, top in zip(self._names, tops, strict=True):
            if (top < 0).any():
                raise EdgekitError(
                    f"{name} returned NaN or infinite logits for {int((top < 0).sum())} of "
                    f"{len(top)} variants of an image"
                )
        same = [tops[one] == tops[two] for one, two in self.pairs]
        self._same["clean"].append([float(equal[0]) for equal in same])
        self._same["corrupted"].append([float(equal[1:].mean()) for equal in same])

    def interval(self, pair: int, kind: Kind, confidence: float = 0.95) -> Interval:
        """The agreement of a pair on ``kind`` images."""
        return agreement_interval(np.array([row[pair] for row in self._same[kind]]), confidence)

    def odd_one_out(self, *, stopped: bool) -> Odd | None:
        """The model that agrees less with every other than any two others do, beyond doubt.

        With ``stopped``, the images were not a number fixed before: then only sequences hold.
        """
        if len(self._names) < 3:
            return None
        for kind in KINDS:
            intervals = [self._sure(pair, kind, stopped) for pair in range(len(self.pairs))]
            for model in range(len(self._names)):
                own = [i for i, pair in zip(intervals, self.pairs, strict=True) if model in pair]
                rest = [
                    i for i, pair in zip(intervals, self.pairs, strict=True) if model not in pair
                ]
                if max(i.upper for i in own) < min(i.lower for i in rest):
                    return Odd(model, kind)
        return None

    def _sure(self, pair: int, kind: Kind, stopped: bool) -> Interval:
        """An interval that holds together with all of the others (Bonferroni)."""
        share = ERRORS / (len(KINDS) * len(self.pairs))
        if not stopped:
            return self.interval(pair, kind, 1 - share)
        agreement = np.array([row[pair] for row in self._same[kind]])
        state = SequentialDelta(50.0, share).update(100 * (1 - agreement))
        return Interval(
            1 - state.estimate / 100,
            1 - min(state.upper / 100, 1.0),
            1 - max(state.lower / 100, 0.0),
            state.images,
        )
