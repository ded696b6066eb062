"""Do the intervals cover? Simulations with a known truth, and the degenerate cases by hand."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy import stats as scipy_stats

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.metrics.corruption_error import ALEXNET_ERROR_EXTRA, BENCHMARK_CORRUPTIONS, mce
from edgekit.metrics.intervals import (
    Interval,
    PairedErrors,
    _gamma_quantile,
    _student,
    agreement_interval,
    cell_weights,
    corruption_deltas,
    corruption_weights,
    delta_interval,
    mean_interval,
)
from edgekit.metrics.simulation import PairedModel
from edgekit.metrics.verdicts import agreement_gate, corruption_gate, overall_outcome, verdict

KINDS = BENCHMARK_CORRUPTIONS
SEVERITIES = (1, 2, 3, 4, 5)
NOMINAL = (0.93, 0.97)

MODELS = {
    "1% differ": PairedModel((0.0,) * 15, 0.035),
    "2% differ, a loss": PairedModel((0.03,) * 15, 0.08),
    "2% differ, clustered": PairedModel(
        (0.0,) * 15, 0.06, noise_image_share=0.8, fragile_factor=10
    ),
    "5% differ, uneven loss": PairedModel(tuple(np.linspace(0, 0.1, 15)), 0.15),
}


@cache
def population(name: str) -> np.ndarray:
    """Paired errors of 10,000 images: for draws with replacement, their mean is the truth."""
    rng = np.random.default_rng(1)
    return np.concatenate([MODELS[name].draw(rng, 2500) for _ in range(4)])


def paired(difference: np.ndarray, measured: np.ndarray | None = None) -> PairedErrors:
    return PairedErrors(difference, KINDS, SEVERITIES, "alexnet", measured)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("images", "runs"), [(200, 1500), (1000, 1000), (5000, 1000)])
def test_delta_interval_covers_the_truth(name: str, images: int, runs: int) -> None:
    weights = cell_weights(KINDS, SEVERITIES, "alexnet")
    scores = population(name).reshape(-1, 75) @ weights.reshape(75)
    truth = scores.mean()
    rng = np.random.default_rng(images)
    below = above = 0
    for _ in range(runs):
        sample = scores[rng.integers(0, len(scores), images)]
        interval = mean_interval(sample, weights.sum())
        below += truth < interval.lower
        above += truth > interval.upper
    assert NOMINAL[0] <= 1 - (below + above) / runs <= NOMINAL[1]
    assert max(below, above) / runs < 0.045  # misses on both sides, not only in sum


def test_population_is_what_the_model_says() -> None:
    for name, model in MODELS.items():
        measured = population(name).mean(axis=0)
        assert np.abs(measured - model.true_deltas()).max() < 0.01
        assert measured.mean() == pytest.approx(model.true_deltas().mean(), abs=0.0015)
        discordance = np.abs(population(name)).mean()
        assert 0.009 < discordance < 0.051


def test_delta_interval_is_that_of_the_weighted_scores() -> None:
    difference = population("1% differ")[:300]
    weights = cell_weights(KINDS, SEVERITIES, "alexnet")
    expected = mean_interval(difference.reshape(-1, 75) @ weights.reshape(75), weights.sum())
    assert delta_interval(paired(difference)) == expected
    everything = np.ones_like(difference, dtype=bool)
    masked = delta_interval(paired(difference, everything))
    assert (masked.lower, masked.upper) == pytest.approx((expected.lower, expected.upper))


@pytest.mark.parametrize(("discordance", "images"), [(0.01, 200), (0.02, 200), (0.01, 500)])
def test_a_handful_of_losses_is_covered_where_the_usual_interval_is_not(
    discordance: float, images: int
) -> None:
    """One cell, candidate only ever worse: the hard case for intervals that assume symmetry."""
    rng = np.random.default_rng(3)
    runs = 2000
    ours = usual = 0
    for _ in range(runs):
        scores = (rng.random(images) < discordance) * np.full(images, 100.0)
        interval = mean_interval(scores, 100.0)
        ours += interval.lower <= 100 * discordance <= interval.upper
        half = 1.96 * scores.std(ddof=1) / math.sqrt(images)
        usual += abs(scores.mean() - 100 * discordance) <= half
    assert ours / runs >= 0.93
    assert usual / runs < 0.93


def test_a_few_fragile_images_that_make_up_most_of_the_sum_are_covered() -> None:
    model = PairedModel((0.0,) * 15, 0.03, noise_image_share=0.9, fragile_factor=25)
    rng = np.random.default_rng(0)
    everything = np.concatenate([model.draw(rng, 2500) for _ in range(4)])
    scores = 100 * everything.reshape(-1, 75).mean(axis=1)
    runs, covered = 1500, 0
    for _ in range(runs):
        interval = mean_interval(scores[rng.integers(0, len(scores), 100)], 100.0)
        covered += interval.lower <= scores.mean() <= interval.upper
    assert covered / runs >= 0.945


def test_no_difference_seen_is_the_rule_of_three_not_certainty() -> None:
    for images in (100, 1000):
        interval = mean_interval(np.zeros(images), 100.0)
        # If more than this share of images were lost, seeing none would have a chance below 2.5%.
        exact = 100 * (1 - 0.025 ** (1 / images))
        assert interval.upper == pytest.approx(exact, rel=0.03)
        assert interval.lower == -interval.upper
    all_lost = mean_interval(np.full(100, 100.0), 100.0)
    assert all_lost.upper == 100
    assert all_lost.lower < 100 * 0.025 ** (1 / 100) + 0.5
    # One tiny flip must not turn the rule of three into near certainty.
    one = np.zeros(1000)
    one[0] = 1.3
    assert mean_interval(one, 100.0).upper > mean_interval(np.zeros(1000), 100.0).upper / 4


def test_many_scores_give_the_usual_interval() -> None:
    scores = np.random.default_rng(0).normal(3, 10, 20_000).clip(-100, 100)
    interval = mean_interval(scores, 100.0)
    half = 1.96 * scores.std() / math.sqrt(20_000)
    assert interval.upper - interval.estimate == pytest.approx(half, rel=0.01)
    assert interval.estimate - interval.lower == pytest.approx(half, rel=0.01)
    narrower = mean_interval(scores, 100.0, confidence=0.8)
    assert (narrower.upper - narrower.lower) / (2 * half) == pytest.approx(1.2816 / 1.96, rel=0.01)


def test_interval_is_equivariant() -> None:
    scores = np.asarray(population("2% differ, a loss")[:400].reshape(400, -1).mean(axis=1))
    plain, scaled = mean_interval(scores, 1.0), mean_interval(100 * scores, 100.0)
    assert (scaled.lower, scaled.upper) == pytest.approx((100 * plain.lower, 100 * plain.upper))
    mirrored = mean_interval(-scores, 1.0)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((-plain.upper, -plain.lower))


def test_quantile_approximations() -> None:
    for events in (0.5, 1.0, 2.0, 5.0, 30.0):
        exact = scipy_stats.gamma.ppf(0.975, events)
        assert _gamma_quantile(events, events, 1.96) == pytest.approx(exact, rel=0.04)
        exact = scipy_stats.gamma.ppf(0.025, events)
        assert _gamma_quantile(events, events, -1.96) == pytest.approx(exact, abs=0.03)
    for freedom in (4, 10, 100):
        exact = scipy_stats.t.ppf(0.975, freedom)
        assert _student(scipy_stats.norm.ppf(0.975), freedom) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("name", ["2% differ, clustered", "5% differ, uneven loss"])
def test_corruption_deltas_hold_all_at_once(name: str) -> None:
    everything = population(name)
    weights = corruption_weights(KINDS, SEVERITIES, "alexnet")
    truth = (weights * everything.mean(axis=0)).sum(axis=1)
    rng = np.random.default_rng(11)
    runs = 400
    joint = alone = 0
    for _ in range(runs):
        sample = everything[rng.integers(0, len(everything), 500)]
        intervals = list(corruption_deltas(paired(sample)).intervals.values())
        joint += all(i.lower <= t <= i.upper for i, t in zip(intervals, truth, strict=True))
        scores = (sample * weights).sum(axis=2)
        half = 1.96 * scores.std(axis=0) / math.sqrt(500)
        alone += bool((np.abs(scores.mean(axis=0) - truth) <= half).all())
    assert 0.93 <= joint / runs <= 0.985
    assert alone / runs < 0.75  # fifteen separate 95% intervals are a fishing license


def test_critical_value_follows_the_correlation() -> None:
    rng = np.random.default_rng(0)
    independent = (rng.random((3000, 15, 5)) < 0.03).astype(np.int8)
    # Sidak's value for fifteen independent intervals; one shared column needs no correction.
    sidak = scipy_stats.norm.ppf((1 + 0.95 ** (1 / 15)) / 2)
    assert corruption_deltas(paired(independent)).critical == pytest.approx(sidak, abs=0.04)
    same = np.repeat(independent[:, :1], 15, axis=1)
    assert corruption_deltas(paired(same)).critical == pytest.approx(1.96, abs=0.03)
    nothing = corruption_deltas(paired(np.zeros_like(independent)))
    assert nothing.critical == pytest.approx(sidak, abs=0.04)
    assert all(i.upper > 0.1 for i in nothing.intervals.values())


def test_deltas_are_differences_of_mce() -> None:
    """Paired statistics and the metric agree to rounding, extras included in neither mean."""
    rng = np.random.default_rng(0)
    kinds = (*KINDS, *ALEXNET_ERROR_EXTRA)
    reference = rng.random((50, 19, 5)) < 0.4
    candidate = rng.random((50, 19, 5)) < 0.45
    difference = candidate.astype(np.int8) - reference.astype(np.int8)
    for baseline in ("alexnet", "none"):
        figures = [
            mce(
                {
                    kind: {s: float(errors[:, c, s - 1].mean()) for s in SEVERITIES}
                    for c, kind in enumerate(kinds)
                },
                baseline,
            )
            for errors in (candidate, reference)
        ]
        pairs = PairedErrors(difference, kinds, SEVERITIES, baseline)
        estimate = delta_interval(pairs).estimate
        assert estimate == pytest.approx(figures[0].value_percent - figures[1].value_percent)
        deltas = corruption_deltas(pairs).intervals
        for kind in kinds:
            change = figures[0].per_corruption[kind] - figures[1].per_corruption[kind]
            assert deltas[kind].estimate == pytest.approx(change)
        assert np.mean([deltas[kind].estimate for kind in KINDS]) == pytest.approx(estimate)


def test_deltas_are_deterministic_and_ranked() -> None:
    pairs = paired(population("5% differ, uneven loss")[:4000])
    first, second = corruption_deltas(pairs), corruption_deltas(pairs)
    assert first == second
    assert first.worst()[0] in KINDS[-4:]


@pytest.mark.parametrize("shift", [0.02, 0.8])
def test_cells_left_out_at_random_are_covered(shift: float) -> None:
    """An interrupted run: all cells of 300 images, six of the others; a small and a large loss."""
    rng = np.random.default_rng(2)
    model = PairedModel((shift,) * 15, 0.1)
    everything = np.concatenate([model.draw(rng, 2500) for _ in range(2)])
    weights = cell_weights(KINDS, SEVERITIES, "alexnet")
    truth = float((weights * everything.mean(axis=0)).sum())
    runs, covered, width = 500, 0, 0.0
    for _ in range(runs):
        sample = everything[rng.integers(0, len(everything), 800)]
        measured = (rng.random((800, 75)).argsort(axis=1) < 6).reshape(sample.shape)
        measured[:300] = True
        interval = delta_interval(paired(np.where(measured, sample, 1).astype(np.int8), measured))
        covered += interval.lower <= truth <= interval.upper
        width += interval.upper - interval.lower
    assert 0.93 <= covered / runs <= 0.975
    # Points. With the variance that the design adds to the scores it would be 5.0.
    assert width / runs < 3


def test_verdicts() -> None:
    assert verdict(Interval(0.1, -0.2, 0.5, 1000), 0.5).outcome == "pass"
    assert verdict(Interval(1.0, 0.51, 1.5, 1000), 0.5).outcome == "fail"
    assert verdict(Interval(1.0, 0.5, 1.5, 1000), 0.5).outcome == "undecided"
    undecided = verdict(Interval(0.1, -0.7, 0.9, 1000), 0.5)
    assert undecided.outcome == "undecided"
    assert undecided.more_images == 3000  # half the width needs four times the images
    assert "about 3,000 more images" in undecided.sentence
    assert verdict(Interval(0.8, 0.2, 1.4, 1000), 0.5).more_images == 3000
    hopeless = verdict(Interval(0.5, 0.1, 0.9, 1000), 0.5)
    assert hopeless.more_images is None
    assert "at the tolerance" in hopeless.sentence
    with pytest.raises(UsageError, match="not a number"):
        verdict(Interval(0.5, 0.1, 0.9, 1000), math.nan)


def test_the_promised_images_do_decide() -> None:
    scores = population("2% differ, clustered").reshape(-1, 75).mean(axis=1)[:300] * 100
    first = mean_interval(scores, 100.0)
    for tolerance, outcome in (
        (first.estimate + 0.5 * (first.upper - first.estimate), "pass"),
        (first.estimate - 0.5 * (first.estimate - first.lower), "fail"),
    ):
        more = verdict(first, tolerance).more_images
        assert more is not None
        assert more == pytest.approx(900, abs=2)
        enough = np.tile(scores, 1 + math.ceil(1.1 * more / 300))
        assert verdict(mean_interval(enough, 100.0), tolerance).outcome == outcome
        short = np.tile(scores, math.floor(0.9 * more / 300) + 1)
        assert verdict(mean_interval(short, 100.0), tolerance).outcome == "undecided"


def test_gates_say_what_missed_them() -> None:
    pairs = paired(population("5% differ, uneven loss")[:3000])
    deltas = corruption_deltas(pairs)
    assert corruption_gate(deltas, 20.0).outcome == "pass"
    assert corruption_gate(deltas, 20.0).reasons == ()
    strict = corruption_gate(deltas, 1.0)
    assert strict.outcome == "fail"
    assert any("jpeg_compression" in line and "is beyond" in line for line in strict.reasons)
    assert any("is not shown to be within" in line for line in strict.reasons)
    assert strict.more_images == 0  # it is decided
    unsure = corruption_gate(deltas, max(i.upper for i in deltas.intervals.values()) - 0.1)
    assert unsure.outcome == "undecided"
    assert unsure.more_images is not None
    assert 1 <= unsure.more_images < 3000
    assert f"about {unsure.more_images:,} more images" in unsure.reasons[0]
    agreement = agreement_interval(np.full(500, 0.98) + np.tile([0.02, -0.02], 250))
    assert agreement.estimate == pytest.approx(0.98)
    assert agreement_gate("code agreement", agreement, 0.95).outcome == "pass"
    assert agreement_gate("code agreement", agreement, 0.99).outcome == "fail"
    assert "code agreement 0.98" in agreement_gate("code agreement", agreement, 0.99).reasons[0]
    assert agreement_gate("code agreement", agreement, 0.98).outcome == "undecided"
    perfect = agreement_interval(np.ones(1000))
    assert perfect.upper == 1
    assert 0.995 < perfect.lower < 0.997
    assert overall_outcome("pass", "undecided", "fail") == "fail"
    assert overall_outcome("pass", "undecided") == "undecided"


def test_bad_input_is_one_line() -> None:
    good = np.zeros((10, 15, 5), np.int8)
    with pytest.raises(EdgekitError, match="do not fit 15 corruptions x 5"):
        paired(good[:, :14])
    with pytest.raises(UsageError, match="at least two images"):
        paired(good[:1])
    with pytest.raises(EdgekitError, match="not -1, 0 or 1"):
        paired(good + np.int8(2))
    measured = np.ones_like(good, dtype=bool)
    measured[:, 9, 2] = False
    with pytest.raises(UsageError, match="no image was evaluated for fog severity 3"):
        paired(good, measured)
    with pytest.raises(UsageError, match="--normalize-by none"):
        delta_interval(PairedErrors(good[:, :, :2], KINDS, (1, 2), "alexnet"))
    with pytest.raises(UsageError, match="between 0 and 1"):
        mean_interval(np.zeros(10), 1.0, confidence=95)
    with pytest.raises(EdgekitError, match="NaN"):
        mean_interval(np.array([0.0, np.nan]), 1.0)
