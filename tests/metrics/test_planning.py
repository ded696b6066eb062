"""Planned numbers of images against measured ones."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.metrics.intervals import mean_interval
from edgekit.metrics.planning import CASES, EQUAL, UNEVEN, USUAL, Case, measured_case, outlook

# Tolerances that nine in ten simulated full runs pass (docs/parity-statistics.md, by size).
MEASURED = {
    USUAL: {200: 0.72, 500: 0.45, 1000: 0.32, 2000: 0.23, 5000: 0.14},
    UNEVEN: {200: 1.37, 500: 0.87, 1000: 0.61, 2000: 0.43, 5000: 0.27},
}


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: case.name)
def test_the_plan_agrees_with_simulated_runs(case: Case) -> None:
    for images, tolerance in MEASURED[case].items():
        assert case.decides(images) == pytest.approx(tolerance, rel=0.04)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_planned_number_is_the_least(case: Case) -> None:
    images = case.images(0.5)
    assert case.decides(images) <= 0.5 < case.decides(images - 1)


def test_models_that_never_differ_need_what_their_interval_says() -> None:
    images = EQUAL.images(0.5)
    assert mean_interval(np.zeros(images), 100.0).upper <= 0.5
    assert mean_interval(np.zeros(images - 10), 100.0).upper > 0.5


def test_a_measured_spread_is_that_of_the_scores() -> None:
    scores = np.random.default_rng(0).choice([-20.0, 0.0, 20.0], 2000, p=[0.05, 0.9, 0.05])
    case = measured_case("it", mean_interval(scores, 100.0))
    assert case.spread == pytest.approx(scores.std(), rel=0.05)


def test_the_outlook_of_a_split() -> None:
    fewest, most = USUAL.images(0.5), UNEVEN.images(0.5)
    assert f"{fewest - 120:,} to {most - 120:,} more would decide 0.5" in outlook(120, 0.5)
    assert "about ±3.1 points" in outlook(120, 0.5)
    assert "enough for a tolerance of 0.5" in outlook(most, 0.5)
    assert "0 to 1 more" in outlook(most - 1, 0.5)
    assert "more" not in outlook(120, 0.0)
    assert "at least two" in outlook(1, 0.5)
