"""The size of a monitor's reference follows from the model, and is not decided by a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.core.errors import UsageError
from edgekit.steps.config import BuildConfig
from edgekit.steps.field_options import LEAST_IMAGES, FieldOptions, affordable

LITE0, RESNET50 = 75_500_000, 4_100_000_000  # multiply-adds at 96 and at 224 pixels


def test_answers_are_counted() -> None:
    assert FieldOptions().answers() == 1800 + 200 * 16
    assert FieldOptions(images=101).answers() == 51 + 50 * 16


def test_a_small_model_gets_all_and_a_large_one_what_it_can_afford() -> None:
    """The record of the former is what it was before there was a price."""
    assert affordable(LITE0, (96, 96)) == FieldOptions()
    assert "price" not in FieldOptions().to_dict()
    large = affordable(RESNET50, (224, 224))
    assert large.images == 219
    assert large.corrupted == FieldOptions().corrupted
    assert large.price is not None
    assert RESNET50 < large.price < 1.1 * RESNET50


def test_dearer_models_get_no_more_but_never_too_few() -> None:
    images = [affordable(10**power, (64, 64)).images for power in range(6, 15)]
    assert images == sorted(images, reverse=True)
    assert (images[0], images[-1]) == (2000, LEAST_IMAGES)
    assert affordable(0, (2000, 2000)).images < 2000  # corrupting pixels has its price, too


def test_a_record_is_recognized() -> None:
    """Without the model's price, which is not at hand until it is exported."""
    usual, limited = FieldOptions(), affordable(RESNET50, (224, 224))
    assert usual.made(usual.to_dict())
    assert usual.made(limited.to_dict())
    assert not usual.made(replace(limited, price=None).to_dict())  # somebody asked for so few
    assert not usual.made(replace(limited, levels=3).to_dict())
    asked = FieldOptions(images=300)
    assert asked.made(asked.to_dict())
    assert not asked.made(usual.to_dict())
    assert not asked.made(limited.to_dict())
    assert not usual.made(None)
    assert not usual.made({"images": "many"})


def test_too_few_are_refused() -> None:
    with pytest.raises(UsageError, match="watch_images must be at least 50, not 49"):
        BuildConfig(watch_images=49)
