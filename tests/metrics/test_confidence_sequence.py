"""Looking after every batch must not raise the error rate; stopping must save work."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.corruption_grid import sample_severities
from edgekit.metrics.confidence_sequence import (
    SequentialDelta,
    SequentialState,
    fewest_images_to_pass,
    score_bound,
    sequential_scores,
)
from edgekit.metrics.corruption_error import BENCHMARK_CORRUPTIONS
from edgekit.metrics.intervals import PairedErrors, cell_weights, delta_interval, mean_interval
from edgekit.metrics.simulation import PairedModel
from edgekit.metrics.verdicts import verdict
from edgekit.parity.gates import ALPHA, SAMPLE_CONFIDENCE

EQUAL = np.full((15, 5), 100 / 75)


@cache
def scores_of(shift: float, noise: float, cells_per_image: int) -> np.ndarray:
    """Scores of 10,000 images that went through a random few of their cells (75: through all)."""
    rng = np.random.default_rng(4)
    model = PairedModel((shift,) * 15, noise)
    parts = []
    for _ in range(4):
        difference = model.draw(rng, 2500)
        measured = (rng.random((2500, 75)).argsort(axis=1) < cells_per_image).reshape(2500, 15, 5)
        parts.append(sequential_scores(difference, EQUAL, measured))
    return np.concatenate(parts)


def run(monitor: SequentialDelta, scores: np.ndarray, batch: int) -> SequentialState:
    """Feeds batches until the run is decided or the scores are used up."""
    state = monitor.state()
    for start in range(0, len(scores), batch):
        state = monitor.update(scores[start : start + batch])
        if state.decided:
            break
    return state


def peeking(scores: np.ndarray, tolerance: float, batch: int) -> str:
    """What not to do: stop at the first ordinary 95% interval that decides."""
    outcome = "undecided"
    for stop in range(batch, len(scores) + 1, batch):
        outcome = verdict(mean_interval(scores[:stop], 100.0), tolerance).outcome
        if outcome != "undecided":
            break
    return outcome


RARE_LOSS = np.concatenate((np.zeros(1990), np.full(10, 100.0)))
RARE_GAIN = np.concatenate((np.ones(1990), np.full(10, -99.0)))
BOUNDARIES = {
    "two cells an image": lambda: scores_of(0.02, 0.08, 2),
    "all cells, 5% differ": lambda: 3 * scores_of(0.02, 0.12, 75),
    "one image in 200 lost completely": lambda: RARE_LOSS,
    "one image in 200 won back completely": lambda: RARE_GAIN,
}


@pytest.mark.parametrize("name", BOUNDARIES)
def test_false_verdicts_stay_below_the_error_rate(name: str) -> None:
    """The true delta sits exactly at the tolerance, where a wrong verdict is most likely.

    Whatever the truth is, only one of the two verdicts is wrong, and each may come out in at most
    2.5% of runs; with an ordinary interval after the last image on top, in at most 5%.
    """
    everything = np.clip(BOUNDARIES[name](), -100, 100)
    tolerance = float(everything.mean())
    rng = np.random.default_rng(6)
    runs, images, batch = 160, 2000, 50
    early = {"pass": 0, "fail": 0, "undecided": 0}
    final = {"pass": 0, "fail": 0, "undecided": 0}
    for _ in range(runs):
        scores = rng.choice(everything, images)
        outcome = run(SequentialDelta(tolerance), scores, batch).outcome
        early[outcome] += 1
        if outcome == "undecided":
            outcome = verdict(mean_interval(scores, 100.0), tolerance).outcome
        final[outcome] += 1
    assert max(early["pass"], early["fail"]) <= 0.025 * runs
    assert max(final["pass"], final["fail"]) <= 0.05 * runs


def test_peeking_at_an_ordinary_interval_would_not() -> None:
    """The test above can fail: the obvious procedure fails it by far."""
    everything = scores_of(0.02, 0.08, 2)
    rng = np.random.default_rng(6)
    outcomes = [peeking(rng.choice(everything, 2500), everything.mean(), 50) for _ in range(150)]
    assert max(outcomes.count("pass"), outcomes.count("fail")) > 0.1 * 150


@pytest.mark.parametrize("population", [None, 1500])
def test_the_interval_holds_at_every_look(population: int | None) -> None:
    everything = scores_of(0.02, 0.12, 4)
    rng = np.random.default_rng(8)
    runs, missed = 80, 0
    for _ in range(runs):
        scores = rng.choice(everything, 1500)
        truth = everything.mean() if population is None else scores.mean()
        monitor = SequentialDelta(99.0, population=population)
        for start in range(0, 1500, 50):
            state = monitor.update(scores[start : start + 50])
            if not state.lower - 1e-9 <= truth <= state.upper + 1e-9:
                missed += 1
                break
            if start == 1400:  # and it says something: the next to last look
                assert state.upper - state.lower < (4 if population is None else 1.2)
    assert missed <= 0.05 * runs


def test_full_agreement_passes_at_the_fewest_images() -> None:
    fewest = fewest_images_to_pass(0.5)
    assert 738 <= fewest <= 950  # 738 = log(40) * 100 / 0.5 is the least any valid method needs
    monitor = SequentialDelta(0.5)
    assert monitor.update(np.zeros(fewest - 1)).outcome == "undecided"
    assert monitor.more_images() == pytest.approx(1, abs=120)
    assert monitor.update(np.zeros(1)).outcome == "pass"
    assert monitor.more_images() == 0
    assert fewest_images_to_pass(1.0) == pytest.approx(fewest / 2, rel=0.02)


def test_easy_verdicts_come_early() -> None:
    rng = np.random.default_rng(0)
    same = scores_of(0.0, 0.08, 75)
    passing = run(SequentialDelta(0.5), rng.choice(same, 50_000), 100)
    assert passing.outcome == "pass"
    assert passing.images <= 1500
    broken = scores_of(0.5, 0.08, 75)
    failing = run(SequentialDelta(0.5), rng.choice(broken, 50_000), 10)
    assert failing.outcome == "fail"
    assert failing.images <= 100
    assert failing.lower > 0.5


def test_more_images_is_a_fair_forecast() -> None:
    everything = scores_of(0.0, 0.08, 2)
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(40):
        monitor = SequentialDelta(1.0)
        scores = rng.choice(everything, 30_000)
        monitor.update(scores[:600])
        more = monitor.more_images()
        state = run(monitor, scores[600:], 100)
        assert state.decided
        if more:
            ratios.append((600 + more) / state.images)
    assert len(ratios) > 20
    assert 0.5 < float(np.median(ratios)) < 2
    assert SequentialDelta(0.5).more_images() is None


batches = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(batches, st.integers(0, 2**32 - 1), st.sampled_from([None, 600]))
def test_limits_only_shrink_and_verdicts_never_flip(
    sizes: list[int], seed: int, population: int | None
) -> None:
    rng = np.random.default_rng(seed)
    monitor = SequentialDelta(2.0, population=population)
    before = monitor.state()
    assert (before.lower, before.upper) == (-100, 100)
    for size in sizes:
        after = monitor.update(rng.choice([-100.0, 0, 0, 20, 100], size))
        assert before.lower <= after.lower <= after.upper <= before.upper
        assert before.outcome in ("undecided", after.outcome)
        before = after


def test_order_and_batches_do_not_matter() -> None:
    scores = np.random.default_rng(0).choice(scores_of(0.02, 0.08, 4), 800)
    whole = SequentialDelta(0.5).update(scores)
    backwards = SequentialDelta(0.5).update(scores[::-1])
    assert (whole.lower, whole.upper) == pytest.approx((backwards.lower, backwards.upper))
    monitor = SequentialDelta(0.5)
    monitor.update(scores[:500])
    pieces = monitor.update(scores[500:])
    assert pieces.lower >= whole.lower - 0.021  # looks in between can only have narrowed it
    assert pieces.upper <= whole.upper + 0.021


def test_images_in_a_telling_order_leave_the_last_consistent_interval() -> None:
    monitor = SequentialDelta(0.5)
    before = monitor.update(np.full(300, 100.0))
    assert before.outcome == "fail"
    after = monitor.update(np.full(3000, -100.0))
    assert (after.lower, after.upper, after.outcome) == (before.lower, before.upper, "fail")


def test_sides_are_symmetric() -> None:
    scores = np.random.default_rng(0).choice(scores_of(0.02, 0.08, 4), 800)
    plain, mirrored = SequentialDelta(90.0).update(scores), SequentialDelta(90.0).update(-scores)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((-plain.upper, -plain.lower), abs=0.02)


def test_a_known_set_is_decided_sooner_and_exactly_at_its_end() -> None:
    rng = np.random.default_rng(0)
    scores = rng.choice(scores_of(0.0, 0.08, 75), 1000)
    finite = run(SequentialDelta(0.5, population=1000), scores, 20)
    sample = run(SequentialDelta(0.5), scores, 20)
    assert finite.outcome == "pass"
    assert finite.images < 0.8 * sample.images
    monitor = SequentialDelta(float(scores.mean()), population=1000)
    end = monitor.update(scores)
    assert end.lower == end.upper == end.estimate == scores.mean()
    assert end.outcome == "pass"
    with pytest.raises(EdgekitError, match="1001 scores were given for a set of 1000"):
        monitor.update(np.zeros(1))


def design(images: int, levels: int, corruptions: int = 15, severities: int = 5) -> np.ndarray:
    bits = np.random.default_rng(levels).integers(
        0, 2**64, (images, severities + corruptions), np.uint64
    )
    return sample_severities(bits, severities, levels)


@pytest.mark.parametrize(("corruptions", "severities"), [(15, 5), (2, 3), (1, 5), (19, 4)])
@pytest.mark.parametrize("levels", [1, 2])
def test_every_severity_of_a_corruption_is_drawn_alike(
    corruptions: int, severities: int, levels: int
) -> None:
    measured = design(20_000, levels, corruptions, severities)
    assert (measured.sum(axis=2) == levels).all()
    share = levels / severities
    error = math.sqrt(share * (1 - share) / 20_000)
    assert np.abs(measured.mean(axis=0) - share).max() < 4.5 * error
    if corruptions == 15:  # an image's severities are shared out evenly
        assert (measured.sum(axis=1) == 3 * levels).all()


def test_all_severities_are_all_cells() -> None:
    assert design(50, 5).all()


@pytest.mark.parametrize("levels", [1, 2])
def test_sampled_scores_are_unbiased_and_bounded(levels: int) -> None:
    weights = cell_weights(BENCHMARK_CORRUPTIONS, (1, 2, 3, 4, 5), "alexnet")
    difference = PairedModel((0.1,) * 15, 0.3).draw(np.random.default_rng(0), 6000)
    full = sequential_scores(difference, weights)
    measured = design(6000, levels)
    sampled = sequential_scores(difference, weights, measured)
    error = (sampled - full).std() / math.sqrt(6000)
    assert abs(sampled.mean() - full.mean()) < 3 * error
    everything_lost = np.ones((6000, 15, 5), np.int8)
    worst = sequential_scores(everything_lost, weights, measured)
    assert worst == pytest.approx(score_bound(weights))
    with pytest.raises(EdgekitError, match="without any evaluated cell"):
        sequential_scores(everything_lost, weights, np.zeros_like(measured))


def test_sampling_severities_saves_work() -> None:
    """The same verdict for a part of the evaluations (cells x images)."""
    rng = np.random.default_rng(0)
    difference = PairedModel((0.0,) * 15, 0.08).draw(rng, 6000)
    cost = {}
    for levels in (2, 5):
        scores = sequential_scores(difference, EQUAL, design(6000, levels))
        state = run(SequentialDelta(0.5), scores, 50)
        assert state.outcome == "pass"
        cost[levels] = state.images * (15 * levels + 1)
    assert cost[2] < cost[5] / 1.8


def test_a_verdict_has_three_chances_to_be_wrong_and_takes_few() -> None:
    """The procedure of a build: a sequence over a sample, a look at it, a look at everything.

    The true delta sits exactly at the tolerance, where a wrong verdict is most likely.
    """
    rng = np.random.default_rng(3)
    difference = PairedModel((0.02,) * 15, 0.107).draw(rng, 8000)
    everything = sequential_scores(difference, EQUAL)
    tolerance = float(everything.mean())
    runs, images = 200, 1000
    wrong = {"pass": 0, "fail": 0, "undecided": 0}
    for _ in range(runs):
        rows = rng.integers(0, 8000, images)
        bits = rng.integers(0, 2**64, (images, 20), np.uint64)
        measured = sample_severities(bits, 5, 2)
        scores = sequential_scores(difference[rows], EQUAL, measured)
        outcome = run(SequentialDelta(tolerance, ALPHA), scores, 50).outcome
        if outcome == "undecided":
            paired = PairedErrors(
                difference[rows], BENCHMARK_CORRUPTIONS, (1, 2, 3, 4, 5), "none", measured
            )
            outcome = verdict(delta_interval(paired, SAMPLE_CONFIDENCE), tolerance).outcome
        if outcome == "undecided":
            outcome = verdict(mean_interval(everything[rows], 100.0), tolerance).outcome
        wrong[outcome] += 1
    assert max(wrong["pass"], wrong["fail"]) <= 0.05 * runs
    assert wrong["pass"] + wrong["fail"] > 0  # or this would prove nothing


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UsageError, match="decides nothing"):
        SequentialDelta(100.0)
    with pytest.raises(UsageError, match="not between 0 and 1"):
        SequentialDelta(0.5, alpha=5)
    with pytest.raises(EdgekitError, match=r"NaN or outside \[-100, 100\]"):
        SequentialDelta(0.5).update(np.array([0.0, math.nan]))
    with pytest.raises(EdgekitError, match="outside"):
        SequentialDelta(0.5).update(np.array([101.0]))
    with pytest.raises(UsageError, match="cannot be shown"):
        fewest_images_to_pass(0.0)
