"""Do the two models pick the same codewords, how many are in use, and why do some flip?

Codes are [B] for a quantizer of the pooled vector and [B, P] for one of a spatial map with P
positions. Everything accumulated over a sweep is a small array that adds up, so memory does
not grow with the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import EdgekitError

# Margins span many decades, and the flips sit in the smallest: bins of equal ratio, 16 a decade.
# The first bin holds everything below 1e-9, the last everything from 10,000 up: a score is a cosine
# times the feature's length, so it may well be above 1.
MARGIN_EDGES: npt.NDArray[np.float64] = np.concatenate(
    ([0.0], np.geomspace(1e-9, 1e4, 13 * 16 + 1), [np.inf])
)
MARGIN_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class CodeUsage:
    """How much of a codebook is in use. Agreement on a collapsed codebook means nothing."""

    size: int
    used: int
    perplexity: float  # exp(entropy in nats): 1 for a single code, `size` for uniform use


@dataclass(frozen=True)
class MarginSummary:
    """The reference's margin (best minus second best score) where the codes agree and flip.

    Quantiles are those of `MARGIN_QUANTILES`, None where no code fell in the group. Flips that
    sit at small margins are ties broken by rounding; flips at ordinary margins are damage.
    """

    agreeing: int
    flipped: int
    agreeing_quantiles: tuple[float, ...] | None
    flipped_quantiles: tuple[float, ...] | None


def code_agreement(
    reference: npt.NDArray[np.integer], candidate: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Share of an image's codes that are the same in both models: [B], each in [0, 1]."""
    _check_same_shape(reference, candidate)
    same = reference == candidate
    return np.asarray(same.reshape(len(same), -1).mean(axis=1), dtype=np.float64)


def code_counts(codes: npt.NDArray[np.integer], codebook_size: int) -> npt.NDArray[np.int64]:
    """How often each codeword was chosen: int64 [codebook_size]. Counts of batches add up."""
    flat = codes.reshape(-1)
    if flat.size and (flat.min() < 0 or flat.max() >= codebook_size):
        raise EdgekitError(
            f"a code index lies outside the codebook: {int(flat.min())}..{int(flat.max())} "
            f"for {codebook_size} codewords"
        )
    return np.bincount(flat, minlength=codebook_size).astype(np.int64)


def code_usage(counts: npt.NDArray[np.int64]) -> CodeUsage:
    """Usage and perplexity from the counts of `code_counts`."""
    total = int(counts.sum())
    if total == 0:
        raise EdgekitError("no codes were counted: nothing was evaluated")
    share = counts[counts > 0] / total
    entropy = float(-(share * np.log(share)).sum())
    return CodeUsage(size=len(counts), used=len(share), perplexity=float(np.exp(entropy)))


def margin_histogram(
    margins: npt.NDArray[np.floating],
    reference: npt.NDArray[np.integer],
    candidate: npt.NDArray[np.integer],
) -> npt.NDArray[np.int64]:
    """Margins counted by bin of `MARGIN_EDGES`: row 0 agreeing codes, row 1 flipped. Adds up."""
    _check_same_shape(reference, candidate)
    if margins.shape != reference.shape:
        raise EdgekitError(f"{margins.shape} margins for {reference.shape} codes")
    if np.isnan(margins).any() or (margins < 0).any():
        raise EdgekitError("a lookup margin is negative or NaN: the features hold NaN")
    same = reference == candidate
    groups = [np.histogram(margins[group], MARGIN_EDGES)[0] for group in (same, ~same)]
    return np.stack(groups).astype(np.int64)


def margin_summary(histogram: npt.NDArray[np.int64]) -> MarginSummary:
    """Quantiles from the sum of `margin_histogram`s, exact to a bin (16%; below 1e-9 reads 0)."""
    agreeing, flipped = histogram
    return MarginSummary(
        agreeing=int(agreeing.sum()),
        flipped=int(flipped.sum()),
        agreeing_quantiles=_quantiles(agreeing),
        flipped_quantiles=_quantiles(flipped),
    )


def occupied_bins(
    histogram: npt.NDArray[np.int64],
) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """The bins between the first and the last that hold codes: edges, agreeing and flipped codes.

    JSON has no infinity, so the very last edge is put one bin's ratio further.
    """
    occupied = np.flatnonzero(histogram.sum(axis=0))
    if not len(occupied):
        raise EdgekitError("no margins were counted: nothing was evaluated")
    first, last = int(occupied[0]), int(occupied[-1]) + 1
    end = MARGIN_EDGES[-2] ** 2 / MARGIN_EDGES[-3]
    edges = np.append(MARGIN_EDGES[:-1], end)[first : last + 1]
    agreeing, flipped = histogram[:, first:last].tolist()
    return tuple(edges.tolist()), tuple(agreeing), tuple(flipped)


def _quantiles(counts: npt.NDArray[np.int64]) -> tuple[float, ...] | None:
    total = int(counts.sum())
    if total == 0:
        return None
    reached = np.cumsum(counts)
    bins = [int(np.searchsorted(reached, q * total)) for q in MARGIN_QUANTILES]
    # The lower edge of a bin is at most one bin's ratio below the true quantile.
    return tuple(float(MARGIN_EDGES[i]) for i in bins)


def _check_same_shape(
    reference: npt.NDArray[np.integer], candidate: npt.NDArray[np.integer]
) -> None:
    if reference.shape != candidate.shape:
        raise EdgekitError(
            f"codes of shape {reference.shape} (reference) and {candidate.shape} (candidate): "
            "the two models do not quantize the same positions"
        )
