"""Code agreement, usage and margins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.errors import EdgekitError
from edgekit.metrics.codes import (
    MARGIN_EDGES,
    MARGIN_QUANTILES,
    code_agreement,
    code_counts,
    code_usage,
    margin_histogram,
    margin_summary,
    occupied_bins,
)


def test_agreement_is_per_image_for_pooled_and_spatial_codes() -> None:
    np.testing.assert_array_equal(
        code_agreement(np.array([1, 2, 3]), np.array([1, 0, 3])), [1, 0, 1]
    )
    reference = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    candidate = np.array([[1, 2, 3, 0], [0, 6, 0, 8]])
    np.testing.assert_array_equal(code_agreement(reference, candidate), [0.75, 0.5])
    with pytest.raises(EdgekitError, match="do not quantize the same positions"):
        code_agreement(reference, candidate[:, :3])


def test_usage_tells_collapse_from_use() -> None:
    uniform = code_usage(code_counts(np.arange(64).repeat(3), 64))
    assert uniform.used == 64
    assert uniform.perplexity == pytest.approx(64)
    collapsed = code_usage(code_counts(np.full((10, 49), 7), 64))
    assert (collapsed.used, collapsed.size) == (1, 64)
    assert collapsed.perplexity == pytest.approx(1)
    with pytest.raises(EdgekitError, match="no codes were counted"):
        code_usage(code_counts(np.empty(0, np.int64), 64))


@given(hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 15)), st.integers(0, 60))
def test_counts_of_batches_add_up(codes: np.ndarray, cut: int) -> None:
    whole = code_counts(codes, 16)
    np.testing.assert_array_equal(
        code_counts(codes[:cut], 16) + code_counts(codes[cut:], 16), whole
    )
    assert whole.sum() == len(codes)
    assert 1 <= code_usage(whole).perplexity <= code_usage(whole).used + 1e-9


@pytest.mark.parametrize("index", [-1, 16])
def test_an_index_outside_the_codebook_is_an_error(index: int) -> None:
    with pytest.raises(EdgekitError, match="outside the codebook"):
        code_counts(np.array([0, index]), 16)


def test_margin_summary_separates_ties_from_damage() -> None:
    rng = np.random.default_rng(0)
    margins = np.exp(rng.normal(-5, 1.5, 20_000))
    reference = rng.integers(0, 9, 20_000)
    flips = rng.random(20_000) < np.exp(-margins / 1e-3)
    candidate = np.where(flips, reference + 1, reference)
    halves = [
        margin_histogram(margins[part], reference[part], candidate[part])
        for part in (slice(0, 7_000), slice(7_000, None))
    ]
    summary = margin_summary(halves[0] + halves[1])
    assert (summary.flipped, summary.agreeing) == (flips.sum(), (~flips).sum())
    for group, found in (
        (flips, summary.flipped_quantiles),
        (~flips, summary.agreeing_quantiles),
    ):
        assert found is not None
        exact = np.quantile(margins[group], MARGIN_QUANTILES)
        assert (np.asarray(found) <= exact * 1.001).all()
        assert (np.asarray(found) >= exact / 1.17).all()


def test_bins_that_hold_codes() -> None:
    margins, codes = np.array([0.0, 0.013, 2.7, 1e6]), np.array([1, 2, 3, 4])
    flipped = np.array([1, 3, 3, 4])
    edges, same, other = occupied_bins(margin_histogram(margins[:3], codes[:3], flipped[:3]))
    assert len(edges) == len(same) + 1 == len(other) + 1
    assert (sum(same), sum(other)) == (2, 1)
    assert (edges[0], same[0], same[-1]) == (0.0, 1, 1)
    place = other.index(1)
    assert edges[place] <= 0.013 < edges[place + 1]
    assert edges[-2] <= 2.7 < edges[-1]
    edges, same, _ = occupied_bins(margin_histogram(margins, codes, codes))
    assert same[-1] == 1
    assert math.isfinite(edges[-1])
    edges, same, _ = occupied_bins(margin_histogram(margins[1:2], codes[1:2], codes[1:2]))
    assert (len(edges), same) == (2, (1,))
    with pytest.raises(EdgekitError, match="nothing was evaluated"):
        occupied_bins(np.zeros((2, len(MARGIN_EDGES) - 1), np.int64))


def test_margins_of_nothing_and_of_nan() -> None:
    codes = np.array([1, 2])
    assert margin_summary(margin_histogram(np.array([0.1, 0.0]), codes, codes)).flipped == 0
    summary = margin_summary(margin_histogram(np.array([0.1, 0.0]), codes, codes))
    assert summary.flipped_quantiles is None
    with pytest.raises(EdgekitError, match="negative or NaN"):
        margin_histogram(np.array([0.1, np.nan]), codes, codes)
