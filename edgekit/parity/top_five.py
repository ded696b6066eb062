"""Top-5 errors, where a data set has so many classes that they are customary."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.data.corruption_grid import Cells
from edgekit.metrics.intervals import Interval, PairedErrors, cell_weights, delta_interval
from edgekit.parity.answer_cache import Outputs
from edgekit.parity.document import ErrorChange, TopFive
from edgekit.parity.sweep import ImagePair

LEAST_CLASSES: Final = 100
_TOP = 5
_MODELS = ("reference", "candidate")


class TopFiveTally:
    """Counts variants whose label is not among a model's five best classes.

    Index 0 of an axis of length V = 1 + cells is the clean variant. A byte for each image and
    variant is kept, for the paired intervals.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._images = np.zeros(1 + cells.count, np.int64)
        self._wrong = {who: np.zeros(1 + cells.count, np.int64) for who in _MODELS}
        self._differences: list[NDArray[np.int8]] = []  # [V]: candidate wrong minus reference wrong
        self._measured: list[NDArray[np.bool_]] = []

    def add(self, pair: ImagePair) -> None:
        """Add an image."""
        numbers = np.array(pair.numbers)
        reference, candidate = (
            outside_top_five(outputs, pair.label) for outputs in (pair.reference, pair.candidate)
        )
        for who, wrong in zip(_MODELS, (reference, candidate), strict=True):
            self._wrong[who][numbers] += wrong
        self._images[numbers] += 1
        difference = np.zeros(len(self._images), np.int8)
        difference[numbers] = candidate.astype(np.int8) - reference
        measured = np.zeros(len(self._images), np.bool_)
        measured[numbers] = True
        self._differences.append(difference)
        self._measured.append(measured)

    def result(self) -> TopFive | None:
        """Both models' errors, clean and in the mean over the corruptions, in percent.

        None before any image.
        """
        if not self._differences:
            return None
        differences, measured = np.stack(self._differences), np.stack(self._measured)
        cells = self._cells
        names, levels = cells.corruptions, cells.severities
        shape = (-1, len(names), len(levels))
        clean = delta_interval(
            PairedErrors(differences[:, :1, None], ("clean",), (1,), "none", measured[:, :1, None])
        )
        corrupted = delta_interval(
            PairedErrors(
                differences[:, 1:].reshape(shape),
                names,
                levels,
                "none",
                measured[:, 1:].reshape(shape),
            )
        )
        weights = cell_weights(names, levels, "none").reshape(-1)
        shares = {who: self._wrong[who] / self._images for who in _MODELS}
        return TopFive(
            clean=_change({who: 100 * float(share[0]) for who, share in shares.items()}, clean),
            corrupted=_change(
                {who: float(share[1:] @ weights) for who, share in shares.items()}, corrupted
            ),
        )


def outside_top_five(outputs: Outputs, label: int) -> NDArray[np.bool_]:
    """Whether at least five classes come before ``label``, for each variant: bool [B].

    Among equal scores the first class comes first, as it does for the winner.
    """
    own = outputs.log_p[:, label : label + 1]
    before = (outputs.log_p > own).sum(axis=1) + (outputs.log_p[:, :label] == own).sum(axis=1)
    return np.asarray(before >= _TOP, np.bool_)


def _change(errors: dict[str, float], interval: Interval) -> ErrorChange:
    return ErrorChange(
        **errors, delta=interval.estimate, lower=interval.lower, upper=interval.upper
    )
