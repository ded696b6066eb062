"""Another mix of classes, or other images of the same classes? Both change codewords.

The recent images' codewords are compared with the reference's twice: how often each class was
predicted, and which codewords were chosen within each predicted class. Both are likelihood-ratio
tests of two samples, so a small reference is taken into account.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.field.reference import FieldReference

_CLEAR: Final = 3.0  # deviations beyond what chance does
Sign = Literal["classes", "within classes", "both", "neither"]


@dataclass(frozen=True)
class Mixture:
    """How far recent images are from the reference, in deviations of what chance does."""

    DERIVED: ClassVar = ("sign",)

    images: int
    classes: float  # how often each class is predicted
    within: float | None  # codewords within predicted classes; None without a codebook

    @property
    def sign(self) -> Sign:
        """What has changed."""
        within = self.within is not None and self.within > _CLEAR
        if self.classes > _CLEAR:
            return "both" if within else "classes"
        return "within classes" if within else "neither"


def mixture(reference: FieldReference, recent: Sequence[tuple[int, int]]) -> Mixture | None:
    """Of recent images' predicted classes and codewords; None for too few."""
    if len(recent) < 20:
        return None
    size = reference.size
    lab = np.array([(label * size + code, count) for label, code, count in reference.joint])
    field = np.array([label * size + code for label, code in recent], np.int64)
    keys = np.unique(np.concatenate([lab[:, 0], field]))
    table = np.zeros((2, len(keys)))
    table[0, np.searchsorted(keys, lab[:, 0])] = lab[:, 1]
    np.add.at(table[1], np.searchsorted(keys, field), 1)
    labels = keys // size
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    by_class = np.add.reduceat(table, starts, axis=1)
    between = _deviations(*_likelihood_ratio(by_class))
    if reference.kind == "class":
        return Mixture(len(recent), between, None)
    ratio, freedom = 0.0, 0
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        one, more = _likelihood_ratio(table[:, start:end])
        ratio, freedom = ratio + one, freedom + more
    return Mixture(len(recent), between, _deviations(ratio, freedom))


def _likelihood_ratio(table: NDArray[np.float64]) -> tuple[float, int]:
    """G of a table of two samples, and its degrees of freedom; nothing if one sample is empty."""
    rows = table.sum(axis=1)
    if rows.min() == 0 or table.shape[1] < 2:
        return 0.0, 0
    expected = rows[:, None] * table.sum(axis=0) / table.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(table > 0, table * np.log(table / expected), 0.0)
    return float(2 * parts.sum()), table.shape[1] - 1


def _deviations(ratio: float, freedom: int) -> float:
    """Wilson and Hilferty's normal form of a chi-square value."""
    if freedom == 0:
        return 0.0
    part = 2 / (9 * freedom)
    return float((ratio / freedom) ** (1 / 3) - (1 - part)) / math.sqrt(part)
