"""What the evidence says besides yes or no: what it looks like, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.field.detector import SHARES, Expert, Experts, Floats
from edgekit.field.reference import Cell, FieldReference

_SHOWN: Final = 3
_GRID: Final = np.linspace(0.0, 1.0, 1001)
_QUANTILES: Final = (0.05, 0.95)
_LEAST: Final = 1e-3  # weight of a resemblance that is worth a line
_OTHER: Final = 0.1  # how likely an unknown kind of images is before any was seen
_ANYTHING: Final = 16.0  # images' worth of knowledge about an unknown kind


@dataclass(frozen=True)
class Resemblance:
    """A known kind of images that the stream resembles."""

    corruption: str
    severity: int
    weight: float  # its share of the evidence


@dataclass(frozen=True)
class ErrorEstimate:
    """Share of wrong answers, as the labels of the lab make it likely; the interval has 90%."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Outlook:
    """What the images since the change look like."""

    resembles: tuple[Resemblance, ...]  # the heaviest first
    # Share of the images that seem to have changed; a severe corruption of some looks like a
    # slight one of all.
    affected: float
    unknown: float  # weight of "unlike anything known"
    error: ErrorEstimate | None  # None without labels, and where nothing known fits


def outlook(experts: Experts, symbols: NDArray[np.int64]) -> Outlook:
    """What images with these symbols look like: those since the change, as far as remembered."""
    reference = experts.reference
    shares = [Expert(cell, share) for cell in range(len(reference.cells)) for share in SHARES]
    weights = _posterior(experts, shares, symbols)
    known, unknown = weights[:-1], float(weights[-1])
    by_cell = np.zeros(len(reference.cells))
    affected = 0.0
    for one, weight in zip(shares, known.tolist(), strict=True):
        by_cell[one.cell] += weight
        affected += weight * one.share
    total = float(known.sum())
    order = np.argsort(-by_cell, kind="stable")[:_SHOWN]
    found = tuple(
        Resemblance(
            reference.cells[cell].corruption, reference.cells[cell].severity, float(by_cell[cell])
        )
        for cell in order.tolist()
        if by_cell[cell] > _LEAST
    )
    error = None
    if unknown < 0.5 and total > 0:
        error = _error(reference, shares, known / total)
    return Outlook(found, affected / total if total else 1.0, unknown, error)


def _posterior(experts: Experts, shares: list[Expert], symbols: NDArray[np.int64]) -> Floats:
    """Probability of each kind of images given the symbols, and last of any other kind.

    A kind's frequencies are known from as many images as the lab had of it: symbols are drawn from
    a Dirichlet-multinomial distribution around them. Another kind may have any frequencies.
    """
    reference = experts.reference
    seen, counts = np.unique(symbols, return_counts=True)
    clean, pooled = experts.frequencies
    cells = experts.by_cell
    likelihoods = []
    for one in shares:
        mixed = one.share * cells[one.cell][seen] + (1 - one.share) * clean[seen]
        likelihoods.append(
            _log_drawn(
                counts, reference.cells[one.cell].images * mixed, reference.cells[one.cell].images
            )
        )
    other = _log_drawn(counts, _ANYTHING * pooled[seen], _ANYTHING)
    prior = np.log([(1 - _OTHER) / max(len(shares), 1)] * len(shares) + [_OTHER])
    weighted = np.array([*likelihoods, other]) + prior
    powers = np.exp(weighted - weighted.max())
    return np.asarray(powers / powers.sum())


def _log_drawn(counts: NDArray[np.int64], weights: Floats, total: float) -> float:
    """log probability of drawing symbols so often, from a Dirichlet-multinomial distribution."""
    drawn = sum(
        math.lgamma(weight + count) - math.lgamma(weight)
        for weight, count in zip(weights.tolist(), counts.tolist(), strict=True)
    )
    return drawn + math.lgamma(total) - math.lgamma(total + int(counts.sum()))


def _error(
    reference: FieldReference, shares: list[Expert], weights: Floats
) -> ErrorEstimate | None:
    """The mixture of what each kind's error rate may be, given how few images measured it."""
    clean = _rate(reference.clean)
    if clean is None:
        return None
    below = np.zeros(len(_GRID))
    mean = 0.0
    for one, weight in zip(shares, weights.tolist(), strict=True):
        if weight < _LEAST:
            continue
        share, rate = one.share, _rate(reference.cells[one.cell])
        if rate is None:
            return None
        middle = share * rate[0] + (1 - share) * clean[0]
        spread = math.hypot(share * rate[1], (1 - share) * clean[1])
        mean += weight * middle
        below += weight * _normal((_GRID - middle) / max(spread, 1e-6))
    if not below[-1]:
        return None
    low, high = (float(np.interp(q, below / below[-1], _GRID)) for q in _QUANTILES)
    return ErrorEstimate(low, mean / float(below[-1]), high)


def clean_error(reference: FieldReference) -> float | None:
    """The share of wrong answers on the lab's clean images."""
    parts = (reference.normal, reference.clean)
    wrong = [part.wrong for part in parts if part.wrong is not None]
    if len(wrong) < len(parts):
        return None
    return sum(wrong) / sum(part.images for part in parts)


def _rate(cell: Cell) -> tuple[float, float] | None:
    """Mean and deviation of what a cell's error rate may be (Jeffreys' prior)."""
    if cell.wrong is None:
        return None
    wrong, right = cell.wrong + 0.5, cell.images - cell.wrong + 0.5
    total = wrong + right
    return wrong / total, math.sqrt(wrong * right / (total**2 * (total + 1)))


def _normal(values: Floats) -> Floats:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in values.tolist()])
