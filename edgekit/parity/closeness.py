"""How near two models' answers are, whether or not they are right.

An error can stay the same while the answers change: one that became wrong makes up for one that
became right. And what moves all scores alike, such as a scale that is off, changes no winner.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.intervals import agreement_interval
from edgekit.parity.document import Closeness, Estimate, ParityDocument
from edgekit.parity.sweep import ImagePair

# Graphs that are well rounded to 8 bits keep more than 98% of the classes, and scores within 5%
# (docs/families.md).
LEAST_AGREEMENT: Final = 0.95
MOST_SCORES_RMS: Final = 0.05


class ClosenessTally:
    """Sums over images, apart for clean and corrupted variants."""

    def __init__(self) -> None:
        self._off = np.zeros(2)  # squared differences of the scores: clean, corrupted
        self._size = np.zeros(2)  # the reference's squares
        self._same_clean: list[bool] = []

    def add(self, pair: ImagePair) -> None:
        """Add an image."""
        reference, candidate = (
            _centered(outputs.log_p) for outputs in (pair.reference, pair.candidate)
        )
        off = np.square(candidate - reference).sum(axis=1)
        size = np.square(reference).sum(axis=1)
        self._off += off[0], off[1:].sum()
        self._size += size[0], size[1:].sum()
        self._same_clean.append(bool(pair.reference.top[0] == pair.candidate.top[0]))

    def result(self) -> Closeness:
        """The figures for the document."""
        rms = np.sqrt(self._off / np.maximum(self._size, 1e-300))
        same = agreement_interval(np.array(self._same_clean, np.float64))
        return Closeness(
            same_class_clean=Estimate(same.estimate, same.lower, same.upper),
            scores_rms_clean=float(rms[0]),
            scores_rms_corrupted=float(rms[1]),
        )


def _centered(log_p: NDArray[np.float16]) -> NDArray[np.float64]:
    """Logits up to a constant for each image, which says nothing about its classes."""
    values = log_p.astype(np.float64)
    centered: NDArray[np.float64] = values - values.mean(axis=1, keepdims=True)
    return centered


def suspicions(document: ParityDocument) -> tuple[str, ...]:
    """What errors alone would not show, a line each: answers that rounding does not explain."""
    close, top = document.closeness, document.top1_agreement
    found = []
    if close is not None and top is not None:
        cells = ("clean", close.same_class_clean), ("corrupted", top.corrupted)
        low = [(name, same) for name, same in cells if same.upper < LEAST_AGREEMENT]
        if low:
            name, same = low[0]
            found.append(
                f"on {100 * (1 - same.estimate):.1f}% of {name} images the candidate names another "
                "class, which is more than rounding to 8 bits explains, whatever it does to the "
                "error: compare preprocessing (mean, channel order) and the order of the classes"
            )
    if close is not None:
        most = max(close.scores_rms_clean, close.scores_rms_corrupted)
        if most > MOST_SCORES_RMS:
            found.append(
                f"the candidate's scores are off by {100 * most:.0f}% of their RMS; well rounded "
                "ones stay within 5%: the rounding is coarse, or a mean or a scale is wrong. "
                "Against the very file that its runtime was given, as --reference, a right one "
                "stays within 2%"
            )
    return tuple(found)
