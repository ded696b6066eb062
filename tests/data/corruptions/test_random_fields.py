"""The reproducible random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.corruptions.random_fields import (
    KeyedDraws,
    capped_poisson,
    normal_table,
    photon_table,
)

# Robustness tables are compared over years: these numbers must outlive library updates.
UNIFORM = [0.06441342830657959, 0.09111016988754272, 0.2141929268836975, 0.37624359130859375]
INTEGERS = [0, -4, 0, -2, -1, -3, -2, -2]
NORMAL = [-0.1606225, -0.0447844, -0.8219822]
COUNTS = [0, 12, 14, 26, 38, 28, 47, 60]


def test_the_stream_of_a_key_never_changes():
    draws = KeyedDraws("cat/1.jpg", "fog", 3, 7)
    assert draws.uniform((4,)).tolist() == UNIFORM
    assert draws.integers(-4, 4, (8,)).tolist() == INTEGERS
    assert draws.normal((3,)).tolist() == pytest.approx(NORMAL, rel=1e-6)
    image = np.arange(0, 256, 32, dtype=np.uint8)
    assert draws.photon_counts(image, 60).tolist() == COUNTS


def test_every_part_of_the_key_matters():
    keys = [("a", "fog", 1, 0), ("b", "fog", 1, 0), ("a", "snow", 1, 0), ("a", "fog", 2, 0)]
    keys += [("a", "fog", 1, 1), ("a,fog", "", 1, 0), ("", "a,fog", 1, 0)]
    first = {tuple(KeyedDraws(*key).integers(0, 1000, (4,)).tolist()) for key in keys}
    assert len(first) == len(keys)


def test_normal_table_has_the_moments_of_a_normal():
    table = normal_table().astype(np.float64)
    assert table.shape == (65536,)
    assert np.all(np.diff(table) > 0)
    assert table.mean() == pytest.approx(0, abs=1e-9)
    assert table.var() == pytest.approx(1, abs=1e-5)
    assert (table**4).mean() == pytest.approx(3, abs=1e-3)
    assert np.mean(table < -1) == pytest.approx(0.158655, abs=1e-5)


@pytest.mark.parametrize("full_scale", [3, 5, 15, 60, 500])
def test_photon_tables_hold_the_poisson_distribution(full_scale):
    table = photon_table(full_scale)
    slots = 1 << table.outcome_bits
    stays = table.threshold.reshape(256, slots) / 2.0 ** (32 - table.outcome_bits)
    alias = table.alias.reshape(256, slots)
    probability = stays.copy()
    np.add.at(probability, (np.arange(256)[:, None], alias), 1 - stays)
    expected = np.zeros((256, slots))
    expected[:, : full_scale + 1] = capped_poisson(full_scale)
    assert np.abs(probability / slots - expected).max() < 1e-8


def test_capped_poisson_equals_scipy():
    from scipy.stats import poisson

    mean = np.arange(256)[:, None] / 255 * 60
    expected = poisson.pmf(np.arange(60), mean)
    assert np.abs(capped_poisson(60)[:, :60] - expected).max() < 1e-13
    assert capped_poisson(60).sum(axis=1) == pytest.approx(np.ones(256))


@pytest.mark.parametrize("level", [0, 1, 17, 128, 255])
def test_photon_counts_are_drawn_from_their_table(level):
    image = np.full(400_000, level, dtype=np.uint8)
    counts = KeyedDraws("a", "shot_noise", 1, 0).photon_counts(image, 25)
    expected = capped_poisson(25)[level] * image.size
    observed = np.bincount(counts, minlength=26)
    assert np.all(np.abs(observed - expected) <= 5 * np.sqrt(expected) + 1)


def test_uniform_and_integers_are_uniform():
    draws = KeyedDraws("a", "fog", 1, 0)
    values = draws.uniform((200_000,))
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=64, range=(0, 1))[0]
    assert np.abs(counts - 3125).max() < 5 * np.sqrt(3125)
    numbers = draws.integers(-3, 3, (180_000,))
    assert sorted(set(numbers.tolist())) == [-3, -2, -1, 0, 1, 2]
    assert np.abs(np.bincount(numbers + 3) - 30_000).max() < 5 * np.sqrt(30_000)


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (5, 7), (2, 3, 5)])
def test_shapes(shape):
    draws = KeyedDraws("a", "fog", 1, 0)
    for values in (draws.normal(shape), draws.uniform(shape), draws.integers(0, 2, shape)):
        assert values.shape == shape
        assert values.flags.writeable
