"""The size of a monitor's reference follows from the model, and is not decided by a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.core.errors import UsageError
from edgekit.steps.config import BuildConfig
from edgekit.steps.field_options import LEAST_IMAGES, FieldOptions, affordable, recorded

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
    assert recorded(usual.to_dict(), None) == usual
    assert recorded(limited.to_dict(), None) == limited
    assert recorded(replace(limited, price=None).to_dict(), None) is None  # somebody asked for it
    assert recorded(replace(limited, levels=3).to_dict(), None) is None
    fewer = FieldOptions(images=300)
    assert recorded(fewer.to_dict(), 300) == fewer
    assert recorded(fewer.to_dict(), None) is None
    assert recorded(usual.to_dict(), 300) is None
    assert recorded(usual.to_dict(), usual.images) == usual
    for number in (limited.images, usual.images):  # asked for, so no price limits it
        assert recorded(limited.to_dict(), number) is None
    assert recorded(None, None) is None
    assert recorded({"images": "many"}, None) is None


def test_too_few_are_refused() -> None:
    with pytest.raises(UsageError, match="watch_images must be at least 50, not 49"):
        BuildConfig(watch_images=49)
