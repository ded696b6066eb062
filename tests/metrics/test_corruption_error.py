"""mCE against published figures, its algebra, and the checks that keep bad input out of it."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.metrics import corruption_error
from edgekit.metrics.corruption_error import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERROR,
    ALEXNET_ERROR_EXTRA,
    BENCHMARK_CORRUPTIONS,
    choose_baseline,
    kl_divergence,
    mce,
    predicted_classes,
    relative_mce,
    wrong,
)

PUBLISHED = Path(__file__).parent / "robustbench-imagenet-c.csv"


def published(model: str) -> dict[str, dict[int, float]]:
    errors: dict[str, dict[int, float]] = defaultdict(dict)
    with PUBLISHED.open() as file:
        for row in csv.DictReader(file):
            if row["model"] == model:
                errors[row["corruption"]][int(row["column"])] = 1 - float(row["accuracy"])
    return dict(errors)


def constant(errors: dict[str, float]) -> dict[str, dict[int, float]]:
    return {name: dict.fromkeys(range(1, 6), error) for name, error in errors.items()}


@pytest.mark.parametrize(
    ("model", "expected"), [("Standard_R50", 76.37), ("Hendrycks2020AugMix", 64.17)]
)
def test_mce_reproduces_published_figures(model: str, expected: float) -> None:
    result = mce(published(model), "alexnet")
    assert result.complete
    assert result.label == "mCE"
    assert result.value_percent == pytest.approx(expected, abs=0.02)


def test_every_corruption_is_averaged_and_clean_is_not() -> None:
    """A released evaluation script drops gaussian noise and keeps the clean error in its slot."""
    errors = published("Standard_R50")
    clean_error = 1 - 0.7652
    slipped = {**errors, "gaussian_noise": dict.fromkeys(range(1, 6), clean_error)}
    assert mce(slipped, "alexnet").value_percent == pytest.approx(72.96, abs=0.03)
    ours = mce(errors, "alexnet")
    assert ours.value_percent > 76.3
    assert set(ours.averaged) == set(ALEXNET_ERROR)
    for name in BENCHMARK_CORRUPTIONS:  # each of the fifteen moves the mean by its own weight
        worse = {**errors, name: {s: e / 2 for s, e in errors[name].items()}}
        moved = ours.value_percent - mce(worse, "alexnet").value_percent
        assert moved == pytest.approx(ours.per_corruption[name] / 2 / 15)


def test_alexnet_scores_100_on_its_own_benchmark() -> None:
    assert mce(constant(dict(ALEXNET_ERROR)), "alexnet").value_percent == pytest.approx(100)
    relative = relative_mce(constant(dict(ALEXNET_ERROR)), ALEXNET_CLEAN_ERROR, "alexnet")
    assert relative.value_percent == pytest.approx(100)
    assert relative.label == "relative mCE"


def test_there_are_fifteen_corruptions_and_four_extras() -> None:
    assert len(ALEXNET_ERROR) == 15
    assert len(ALEXNET_ERROR_EXTRA) == 4
    # RobustBench measured AlexNet itself: 21.12% mean accuracy. A mistyped constant would show.
    assert 100 * (1 - np.mean(list(ALEXNET_ERROR.values()))) == pytest.approx(21.12, abs=0.03)


cells = hnp.arrays(np.float64, (15, 5), elements=st.floats(0, 1))


def as_errors(table: np.ndarray) -> dict[str, dict[int, float]]:
    return {
        name: {s + 1: float(table[c, s]) for s in range(5)}
        for c, name in enumerate(BENCHMARK_CORRUPTIONS)
    }


@given(cells, cells, st.floats(0, 1), st.sampled_from(["alexnet", "none"]))
def test_mce_is_linear(
    a: np.ndarray, b: np.ndarray, share: float, baseline: corruption_error.Baseline
) -> None:
    mixed = mce(as_errors(np.clip(share * a + (1 - share) * b, 0, 1)), baseline).value_percent
    parts = [mce(as_errors(table), baseline).value_percent for table in (a, b)]
    assert mixed == pytest.approx(share * parts[0] + (1 - share) * parts[1], abs=1e-8)


@given(cells, st.permutations(range(15)), st.permutations(range(1, 6)))
def test_order_does_not_matter(table: np.ndarray, kinds: list[int], severities: list[int]) -> None:
    errors = as_errors(table)
    names = [BENCHMARK_CORRUPTIONS[i] for i in kinds]
    shuffled = {name: {s: errors[name][s] for s in severities} for name in names}
    for baseline in ("alexnet", "none"):
        assert mce(shuffled, baseline).value_percent == pytest.approx(
            mce(errors, baseline).value_percent, abs=1e-9
        )


@given(cells)
def test_unnormalized_mce_is_the_mean_of_the_cells(table: np.ndarray) -> None:
    result = mce(as_errors(table), "none")
    assert result.value_percent == pytest.approx(100 * table.mean(), abs=1e-9)
    assert result.label == "unnormalized mCE"
    relative = relative_mce(as_errors(table), 0.25, "none")
    assert relative.value_percent == pytest.approx(100 * (table.mean() - 0.25), abs=1e-9)


def test_extras_are_reported_but_not_averaged() -> None:
    errors = published("Standard_R50")
    with_extra = {**errors, **constant(dict(ALEXNET_ERROR_EXTRA))}
    result = mce(with_extra, "alexnet")
    assert result.value_percent == mce(errors, "alexnet").value_percent
    assert result.per_corruption["spatter"] == pytest.approx(100)
    assert result.complete
    only = mce(constant({"spatter": 0.3, "saturate": 0.1}), "none")
    assert only.value_percent == pytest.approx(20)


def test_baseline_is_alexnet_for_imagenet_only() -> None:
    assert choose_baseline(1000) == "alexnet"
    assert choose_baseline(100) == "none"
    assert choose_baseline(1000, (1, 3, 5)) == "none"


def test_a_part_says_that_it_is_a_part() -> None:
    errors = published("Standard_R50")
    some = {name: errors[name] for name in ("fog", "snow")}
    result = mce(some, "alexnet")
    assert not result.complete
    assert result.label == "mCE over 2 corruptions at severities 1,2,3,4,5"
    one_severity = {name: {3: cells[3]} for name, cells in errors.items()}
    label = mce(one_severity, "none").label
    assert label == "unnormalized mCE over 15 corruptions at severities 3"


def test_alexnet_is_refused_for_a_part_of_the_severities() -> None:
    with pytest.raises(UsageError, match="measure all five or use --normalize-by none"):
        mce({"fog": {3: 0.5}}, "alexnet")


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({}, "no corruption was evaluated"),
        ({"fog": {}}, "fog has no evaluated severity"),
        ({"fog": {1: 0.5}, "snow": {2: 0.5}}, "snow was measured at severities"),
        ({"fog": {1: float("nan")}}, "fog severity 1 is nan"),
        ({"fog": {1: 50.0}}, "not a fraction"),
        ({"mist": dict.fromkeys(range(1, 6), 0.5)}, "'mist' has no AlexNet error"),
    ],
)
def test_bad_errors_are_one_line(errors: dict[str, dict[int, float]], message: str) -> None:
    baseline: corruption_error.Baseline = "alexnet" if "mist" in errors else "none"
    with pytest.raises(UsageError, match=message) as caught:
        mce(errors, baseline)
    assert "\n" not in str(caught.value)


def test_nan_logits_are_an_error_not_a_class() -> None:
    logits = np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]])
    with pytest.raises(EdgekitError, match=r"candidate returned NaN .* 2 of 3 images in fog 3"):
        predicted_classes(logits, model="candidate", cell="fog 3")
    classes = predicted_classes(logits[:1], model="candidate", cell="fog 3")
    np.testing.assert_array_equal(classes, [1])


def test_wrong_needs_images_and_labels() -> None:
    predicted = np.array([1, 2, 3])
    np.testing.assert_array_equal(
        wrong(predicted, np.array([1, 0, 3]), cell="fog 1"), [False, True, False]
    )
    with pytest.raises(UsageError, match="fog 1 has no labels"):
        wrong(predicted, None, cell="fog 1")
    with pytest.raises(UsageError, match="1 images without a label"):
        wrong(predicted, np.array([1, -1, 3]), cell="fog 1")
    with pytest.raises(UsageError, match="fog 1 has no images"):
        wrong(predicted[:0], predicted[:0], cell="fog 1")
    with pytest.raises(EdgekitError, match="3 predictions for 2 labels"):
        wrong(predicted, predicted[:2], cell="fog 1")


logit_pairs = hnp.arrays(np.float64, (2, 4, 7), elements=st.floats(-50, 50))


@given(logit_pairs, st.floats(-100, 100))
def test_kl_is_a_divergence(pair: np.ndarray, shift: float) -> None:
    p, q = pair
    value = kl_divergence(p, q)
    assert value.shape == (4,)
    assert (value >= 0).all()
    assert (kl_divergence(p, p) == 0).all()
    np.testing.assert_allclose(kl_divergence(p + shift, q), value, atol=1e-9, rtol=1e-9)


def test_kl_is_in_nats_and_stable() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.5, 0.25]])
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert kl_divergence(np.log(p), np.log(q))[0] == pytest.approx(expected)
    far = kl_divergence(np.array([[1e4, 0.0]], np.float32), np.array([[0.0, 1e4]], np.float32))
    assert far[0] == pytest.approx(1e4)
    with pytest.raises(EdgekitError, match="do not share their classes"):
        kl_divergence(np.zeros((1, 3)), np.zeros((1, 4)))
