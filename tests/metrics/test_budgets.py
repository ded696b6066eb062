"""Budgets: what an interval decides, and what the user may ask for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.errors import UsageError
from edgekit.metrics.budgets import (
    BUDGETS,
    Budgets,
    Judged,
    Measured,
    judge,
    judged_by,
    overall,
)

NUMBERS = st.floats(-1e6, 1e6)
LIMITS = st.sampled_from([name for name in BUDGETS if name != "min_agreement"])


@given(LIMITS, NUMBERS, st.lists(NUMBERS, min_size=3, max_size=3))
def test_an_interval_decides_only_from_one_side(
    name: str, limit: float, figures: list[float]
) -> None:
    low, value, high = sorted(figures)
    state = judge(name, limit, Measured(value, low, high)).state
    assert (state == "held") == (high <= limit)
    assert (state == "broken") == (low > limit)
    assert (state == "undecided") == (low <= limit < high)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0.01, 0.99))
def test_a_least_share_is_the_same_from_the_other_side(figures: list[float], limit: float) -> None:
    low, value, high = sorted(figures)
    state = judge("min_agreement", limit, Measured(value, low, high)).state
    assert (state == "held") == (low >= limit)
    assert (state == "broken") == (high < limit)
    assert (state == "undecided") == (low < limit <= high)


@given(LIMITS, NUMBERS, NUMBERS)
def test_a_figure_without_an_interval_is_held_or_broken(
    name: str, limit: float, value: float
) -> None:
    assert judge(name, limit, Measured(value)).state == ("held" if value <= limit else "broken")


@pytest.mark.parametrize(
    "measured",
    [None, Measured(math.nan), Measured(1.0, math.nan, math.nan), Measured(1.0, 0.5, math.nan)],
)
def test_what_was_not_measured_is_never_held(measured: Measured | None) -> None:
    row = judge("max_ms", 2.0, measured, "no clock")
    assert row.state == "undecided"
    assert measured is not None or row.sentence() == (
        "max_ms undecided (not measured, at most 2, no clock)"
    )


def test_a_sentence_says_all_of_it() -> None:
    row = judge("min_agreement", 0.98, Measured(0.97, 0.96, 0.99, "fog"))
    assert row.sentence() == "min_agreement undecided (0.97 [0.96, 0.99], at least 0.98, fog)"
    assert judge("max_mb", 5, Measured(12)).sentence() == "max_mb broken (12, at most 5)"


def row(state: str) -> Judged:
    value = {"held": Measured(1), "broken": Measured(3), "undecided": None}[state]
    return judge("max_mb", 2, value)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "held"),
        (["held"], "held"),
        (["held", "undecided"], "undecided"),
        (["undecided", "broken", "held"], "broken"),
    ],
)
def test_one_broken_breaks_all(states: list[str], expected: str) -> None:
    assert overall(map(row, states)) == expected


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf, -1.0])
def test_limits_that_nothing_could_keep(name: str, limit: float) -> None:
    with pytest.raises(UsageError, match=f"^{name} must "):
        Budgets(**{name: limit})


def test_zero_is_a_limit_for_losses_alone() -> None:
    assert Budgets(max_drop=0, max_regression=0).given() == [("max_drop", 0), ("max_regression", 0)]
    for name in set(BUDGETS) - {"max_drop", "max_regression"}:
        with pytest.raises(UsageError):
            Budgets(**{name: 0.0})
    with pytest.raises(UsageError, match="no sample can show 1"):
        Budgets(min_agreement=1.0)


def test_options_win_over_a_file() -> None:
    both = Budgets(max_mb=1).over(Budgets(max_mb=2, max_ms=3))
    assert both == Budgets(max_mb=1, max_ms=3)


def test_what_cannot_be_judged_is_a_mistake_or_left_out() -> None:
    unable = {"max_ms": "there is no clock"}
    with pytest.raises(UsageError, match="--max-ms cannot be judged here: there is no clock"):
        judged_by(Budgets(max_ms=1), Budgets(), unable)
    budgets, left_out = judged_by(Budgets(max_mb=1), Budgets(max_ms=1, max_drop=2), unable)
    assert budgets == Budgets(max_mb=1, max_drop=2)
    assert [(one.name, one.why) for one in left_out] == [("max_ms", "there is no clock")]
