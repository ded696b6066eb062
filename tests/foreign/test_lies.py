"""A lie detector: each wrong classifier is caught, or what does see it is shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.foreign import lies

_SUSPECT = "more than good rounding to 8 bits does"
_OFF = "off by"


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache: the reference answers once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("lie", "most"),
    [("two classes exchanged", 150), ("BGR instead of RGB", 400), ("nothing but zeros", 60)],
)
def test_errors_show_it_early(lie: str, most: int) -> None:
    told = lies.tell(lie)
    assert (told.code, told.document["verdict"]) == (3, "fail"), told.document["reasons"]
    assert told.images is not None
    assert told.images <= most, f"it took {told.images} images"
    assert "parity fail" in told.errors
    assert any(_SUSPECT in line for line in told.document["warnings"])


def test_half_of_a_batch_repeated_is_seen_before_anything_is_compared() -> None:
    told = lies.tell("half of each batch repeated")
    assert told.code == 1
    assert told.images is None
    assert "answers 8 of 16 images otherwise in a batch than alone" in told.document["error"]


@pytest.mark.parametrize("lie", ["mean off by 5%", "a layer's scale off by 10%"])
def test_what_costs_no_accuracy_is_seen_in_the_scores(lie: str) -> None:
    told = lies.tell(lie)
    assert told.code == 0  # honestly: this network answers as well as before
    assert told.document["top1_agreement"]["corrupted"]["estimate"] > 0.95
    (warning,) = told.document["warnings"]
    assert _OFF in warning
    assert warning in " ".join(told.errors.split())


def test_against_its_own_file_a_wrong_scale_stands_out_from_rounding() -> None:
    wrong = lies.tell(f"a layer's scale off by 10%{lies.SAME_FILE}").document
    right = lies.tell(lies.ELSEWHERE).document
    assert right["warnings"] == []
    assert right["closeness"]["scores_rms_clean"] < 0.02
    assert wrong["closeness"]["scores_rms_clean"] > 0.05
    assert wrong["warnings"]


@pytest.mark.parametrize(
    ("candidate", "limit", "code"),
    [
        ("mean off by 5%", "0.05", 3),
        (f"a layer's scale off by 10%{lies.SAME_FILE}", "0.05", 3),
        (lies.ELSEWHERE, "0.05", 0),
    ],
)
def test_a_budget_on_scores_catches_what_no_error_shows(
    candidate: str, limit: str, code: int
) -> None:
    told = lies.tell(candidate, "--max-scores-rms", limit)
    assert told.code == code
    (row,) = [
        row
        for row in told.document["gate"]["bundles"][0]["budgets"]
        if row["name"] == "max_scores_rms"
    ]
    assert row["state"] == ("broken" if code else "held")
    assert ("max_scores_rms broken" in told.errors) == bool(code)
    assert told.images is not None
    assert told.images <= 200


def test_honest_int8_passes_with_the_same_classes() -> None:
    told = lies.tell(lies.HONEST)
    assert told.code == 0
    assert told.document["closeness"]["same_class_clean"]["estimate"] > 0.97
    assert not any(_SUSPECT in line for line in told.document["warnings"])
