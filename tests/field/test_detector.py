"""The promise about false alarms, and that changes are found and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.field.detector import Detector, Experts
from edgekit.field.outlook import outlook
from tests.field.lab import cell, clean_distribution, foggy_distribution, reference, stream


def images_to_alarm(detector: Detector, symbols: list[int], random: np.random.Generator) -> int:
    """All of them, if there is no alarm."""
    for number, symbol in enumerate(symbols):
        detector.update(symbol, random.random())
        if detector.alarming:
            return number
    return len(symbols)


def test_every_bet_integrates_to_one() -> None:
    experts = Experts(reference())
    widths = np.diff(experts.ends, prepend=0.0)[experts.order_of]
    assert np.allclose((widths * np.exp(experts.bets)).sum(axis=1), 1.0)


def test_every_order_begins_with_what_is_typical_of_its_corruption() -> None:
    experts = Experts(reference())
    clean, foggy = clean_distribution(), foggy_distribution()
    fog = experts.levels[1].astype(float)
    assert np.corrcoef(fog, np.log(foggy / clean))[0, 1] < -0.8
    bets = experts.bets[: 2 * len(experts.corruptions[0])]
    assert (np.diff(bets, axis=1) <= 1e-12).all()
    assert bets[0, 0] > 0.5


def test_the_weights_leave_each_order_its_share_of_false_alarms() -> None:
    """Alarms of an order with weight w come at a rate of at most w / N: together 1 / (2 N)."""
    experts = Experts(reference())
    assert np.isclose(np.exp(experts.log_weights).sum(), 0.5)
    assert len(experts.starts) == 1 + len(experts.corruptions)
    no_cells = dataclasses.replace(reference(), cells=())
    assert np.isclose(np.exp(Experts(no_cells).log_weights).sum(), 0.5)


def test_p_values_are_uniform_and_independent_however_small_the_reference() -> None:
    random = np.random.default_rng(1)
    values = []
    for seed in range(400):
        detector = Detector.begin(Experts(reference(seed, images=30)), 1e6)
        symbols = stream(clean_distribution(), 5, random)
        values.append([detector.update(symbol, random.random()) for symbol in symbols])
    for table in np.moveaxis(np.array(values), 2, 0):  # of each order
        ranks = np.sort(table.ravel())
        distance = np.abs(ranks - np.arange(1, ranks.size + 1) / ranks.size).max()
        assert distance < 1.63 / np.sqrt(ranks.size)  # Kolmogorov and Smirnov at 1%
        correlations = np.corrcoef(table.T)[np.triu_indices(5, 1)]
        assert np.abs(correlations).max() < 3.5 / np.sqrt(len(table))


@pytest.mark.parametrize("promise", [50, 200])
def test_false_alarms_are_as_rare_as_promised(promise: int) -> None:
    """With a reference so small that comparing with its frequencies would alarm at once."""
    random, ends = np.random.default_rng(2), []
    for seed in range(80):
        detector = Detector.begin(Experts(reference(seed, images=40)), promise)
        images_to_alarm(detector, stream(clean_distribution(), 6 * promise, random), random)
        ends.append(detector.images)
    error = np.std(ends) / np.sqrt(len(ends))
    assert np.mean(ends) > promise - 2 * error  # cutting streams off only shortens the mean


def test_the_evidence_minus_the_images_does_not_grow() -> None:
    """Each order's sum is a martingale: its mean after n images is n times its weight."""
    random, sums = np.random.default_rng(3), []
    for seed in range(900):
        detector = Detector.begin(Experts(reference(seed % 300, images=60)), 1e9)
        for symbol in stream(clean_distribution(), 3, random):
            detector.update(symbol, random.random())
        weighted = np.exp(detector.evidence + detector.experts.log_weights)
        sums.append(np.add.reduceat(weighted, detector.experts.starts))
    weights = np.exp(detector.experts.log_weights)
    due = 3 * np.add.reduceat(weights, detector.experts.starts)
    error = np.std(sums, axis=0) / np.sqrt(len(sums))
    assert (np.abs(np.mean(sums, axis=0) - due) < 4 * error).all()


def test_few_images_tell_a_cells_codewords_and_margins() -> None:
    """What by_cell makes of 30 images is nearer to the truth than their own frequencies are."""
    truth, near, far = foggy_distribution(), [], []
    for seed in range(20):
        foggy = cell("fog", 3, truth, 30, seed)
        experts = Experts(dataclasses.replace(reference(), cells=(foggy,)))
        assert np.allclose(experts.by_cell.sum(axis=1), 1.0)
        near.append(np.abs(experts.by_cell[0] - truth).sum())
        prior = 8 * experts.frequencies[1]
        alone = (foggy.dense(len(truth)) + prior) / (30 + prior.sum())
        far.append(np.abs(alone - truth).sum())
    assert np.mean(near) < 0.9 * np.mean(far)


def test_fog_is_found_soon_and_named() -> None:
    random, delays, named, covered = np.random.default_rng(4), [], [], []
    for seed in range(8):
        detector = Detector.begin(Experts(reference(seed)), 1e5)
        for symbol in stream(clean_distribution(), 300, random):
            detector.update(symbol, random.random())
        assert not detector.alarming
        foggy = stream(foggy_distribution(), 400, random)
        number = images_to_alarm(detector, foggy, random)
        look = outlook(detector.experts, np.array(foggy[: number + 50]))
        delays.append(number)
        named.append(look.resembles[0].corruption)
        assert look.error is not None
        covered.append(look.error.low < 0.5 < look.error.high)
        best = int(np.argmax(detector.evidence + detector.experts.log_weights))
        assert abs(int(detector.since[best]) - 300) < 60
    assert np.median(delays) < 60
    assert named.count("fog") >= 7
    assert sum(covered) >= 6


def test_a_change_that_nobody_knows_is_found_by_the_learners() -> None:
    random = np.random.default_rng(5)
    detector = Detector.begin(Experts(reference()), 1e5)
    for symbol in stream(clean_distribution(), 300, random):
        detector.update(symbol, random.random())
    middle = np.zeros(len(clean_distribution()))
    middle[12] = 1.0  # one codeword, ordinary on clean images, and nothing else
    strange = stream(middle, 600, random)
    number = images_to_alarm(detector, strange, random)
    assert number < 100
    look = outlook(detector.experts, np.array(strange[:number]))
    assert look.unknown > 0.5
    assert look.error is None


def test_once_the_fog_lifts_the_evidence_falls() -> None:
    random = np.random.default_rng(6)
    detector = Detector.begin(Experts(reference()), 1e4)
    for symbol in stream(foggy_distribution(), 3000, random):
        detector.update(symbol, random.random(), learn=False)
    assert detector.alarming
    for symbol in stream(clean_distribution(), 500, random):
        detector.update(symbol, random.random(), learn=False)
        if detector.calm:
            return
    raise AssertionError("it is not calm after 500 clean images")
