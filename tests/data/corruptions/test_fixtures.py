"""Corruptions against the reference implementation's outputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgekit.data.corruptions import ALL19, corrupt
from edgekit.data.corruptions.apply import apply
from edgekit.data.corruptions.common import Level
from edgekit.data.corruptions.frost_textures import COUNT, octaves, texture
from edgekit.data.corruptions.weather import frosted
from tests.data.corruption_reference import ReferenceDraws, cells, fixtures, rms

STATISTICAL = {"impulse_noise", "frost"}
EXACT_CELLS = [
    (side, corruption, severity)
    for side in (224, 32)
    for corruption, severity in cells(side)
    if corruption not in STATISTICAL
]
# Mean RMS change by the reference's frost over 16 x 16 parts of each of its five photographs.
REFERENCE_FROST = {
    224: (60.70, 74.89, 82.79, 80.58, 84.95),
    32: (32.48, 47.86, 54.23, 50.36, 50.92),
}
# The standard deviation of their octaves, finest first; the second and third are one picture.
PHOTOGRAPHS_OCTAVES = (
    (8.1, 3.9, 2.7, 2.9, 3.6, 4.3, 11.9),
    (9.1, 6.2, 5.3, 4.3, 3.7, 3.4, 13.9),
    (9.1, 6.2, 5.3, 4.3, 3.7, 3.4, 13.9),
    (15.1, 8.9, 6.5, 4.9, 3.7, 4.2, 17.1),
    (18.5, 12.2, 11.1, 10.5, 8.7, 6.8, 27.2),
)


def test_fixtures_cover_every_corruption():
    assert {corruption for corruption, _ in cells(224) + cells(32)} == set(ALL19)


@pytest.mark.parametrize(("side", "corruption", "severity"), EXACT_CELLS)
def test_equals_the_reference_drawing_the_same_numbers(side, corruption, severity):
    # 0.5 leaves room for the other interpolation in OpenCV before 4.11; with 5.0 it is 0.11.
    image = fixtures(side)["clean"]
    expected = fixtures(side)[f"{corruption}/{severity}"]
    result = apply(image, corruption, severity, ReferenceDraws())
    assert np.abs(result.astype(int) - expected).mean() <= 0.5
    assert rms(result, image) == pytest.approx(rms(expected, image), rel=0.012)


@pytest.mark.parametrize(
    ("corruption", "severity"), [cell for cell in cells(224) if cell[0] in STATISTICAL]
)
def test_strength_at_224_px_is_within_3_percent(corruption, severity):
    image = fixtures(224)["clean"]
    strengths = [
        rms(corrupt(image, corruption, severity, image_id=str(i)), image) for i in range(4)
    ]
    expected = rms(fixtures(224)[f"{corruption}/{severity}"], image)
    assert np.mean(strengths) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_impulse_noise_at_32_px_is_as_strong_as_chance_allows(severity):
    # Some 30 to 215 impulses: one reference image alone is 5 to 15 % off its own mean.
    image = fixtures(32)["clean"]
    strengths = [
        rms(corrupt(image, "impulse_noise", severity, image_id=str(i)), image) for i in range(200)
    ]
    expected = rms(fixtures(32)[f"impulse_noise/{severity}"], image)
    assert abs(np.mean(strengths) - expected) < 3 * np.std(strengths)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("corruption", ["glass_blur", "shot_noise", "gaussian_noise"])
def test_our_own_draws_are_as_strong_as_the_reference(corruption, severity):
    image = fixtures(224)["clean"]
    ours = np.mean(
        [rms(corrupt(image, corruption, severity, image_id=str(i)), image) for i in range(3)]
    )
    replayed = rms(apply(image, corruption, severity, ReferenceDraws()), image)
    assert ours == pytest.approx(replayed, rel=0.02)


@pytest.mark.parametrize("side", [224, 32])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_generated_frost_is_as_strong_as_the_photographs(side, severity):
    image = fixtures(side)["clean"]
    strengths = []
    for which in range(COUNT):
        ice = texture(which, side, None)
        for top in np.linspace(0, ice.shape[0] - side - 1, 8).astype(int):
            for left in np.linspace(0, ice.shape[1] - side - 1, 8).astype(int):
                part = np.ascontiguousarray(ice[top : top + side, left : left + side])
                strengths.append(rms(frosted(image, part, Level(side, severity)), image))
    assert np.mean(strengths) == pytest.approx(REFERENCE_FROST[side][severity - 1], rel=0.03)


@pytest.mark.parametrize("which", range(COUNT))
def test_generated_frost_has_the_octaves_of_the_photographs_in_proportion(which):
    expected = np.array(PHOTOGRAPHS_OCTAVES[which])
    gray = texture(which, 224, None).astype(np.float32).mean(axis=2)
    found = np.array([octave.std() for octave in octaves(gray, len(expected))])
    shares = (found / expected) / np.mean(found / expected)
    assert shares == pytest.approx(1, abs=0.06)


def test_the_texture_that_one_frost_image_shows_predicts_the_others():
    image = fixtures(32)["clean"]
    shown = fixtures(32)["frost/5"].astype(np.float64)
    ice = np.clip((shown + 0.5 - 0.75 * image) / 0.45, 0, 255).astype(np.uint8)
    known = shown < 255
    for severity in (1, 2, 3, 4):
        expected = fixtures(32)[f"frost/{severity}"]
        predicted = frosted(image, ice, Level(32, severity))
        assert np.abs(predicted.astype(int) - expected)[known].mean() <= 1
        assert rms(predicted[known], image[known]) == pytest.approx(
            rms(expected[known], image[known]), rel=0.03
        )


@pytest.mark.skipif(
    "EDGEKIT_FROST_TEXTURES" not in os.environ,
    reason="EDGEKIT_FROST_TEXTURES does not name a folder with the reference's photographs",
)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_frost_from_the_photographs_equals_the_reference(severity):
    folder = Path(os.environ["EDGEKIT_FROST_TEXTURES"])
    image = fixtures(32)["clean"]
    result = apply(image, "frost", severity, ReferenceDraws(), frost_textures=folder)
    expected = fixtures(32)[f"frost/{severity}"]
    assert np.abs(result.astype(int) - expected).mean() <= 0.02
