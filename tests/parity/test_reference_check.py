"""A reference that knows nothing is refused, and one that may know nothing is named."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.data.base import Dataset
from edgekit.parity.predictors import Predictor
from edgekit.parity.reference_check import ReferenceCheck, check_reference
from edgekit.runtime.answers import Answers


class Told:
    """Images that hold the answer to them, and labels; model and data in one."""

    name = "told"
    classes = ("cat", "dog", "owl")

    def __init__(self, labels: list[int], answers: list[int]) -> None:
        self.labels, self.answers = labels, answers
        self.preprocessing = self

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, row: int) -> int:
        return self.labels[row]

    def image(self, row: int) -> NDArray[np.uint8]:
        return np.full((1, 1, 3), self.answers[row], np.uint8)

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image

    def run(self, images: NDArray[np.uint8]) -> Answers:
        return Answers(np.eye(3, dtype=np.float32)[images[:, 0, 0, 0]], None, None)


def check(labels: list[int], answers: list[int], **options: Any) -> ReferenceCheck | None:
    told = Told(labels, answers)
    return check_reference(cast("Predictor", told), cast("Dataset", told), 3, **options)


LABELS = [0] * 60 + [1] * 40  # always saying "cat" is right on 60


def test_a_good_reference_says_nothing() -> None:
    found = check(LABELS, [0] * 55 + [1] * 45)  # right on 55 + 40
    assert found is not None
    assert (found.state, found.right, found.majority_right) == ("better", 95, 60)
    assert found.majority_class == "cat"
    # 40 that it alone is right on, against 5: far beyond 45 coins.
    assert found.chance < 1e-6
    assert found.sentence("x") == ""


@pytest.mark.parametrize(
    ("better", "worse", "state", "chance"),
    [
        (8, 1, "better", 10 / 2**9),
        (7, 2, "barely better", 46 / 2**9),
        (5, 0, "better", 1 / 2**5),
        (4, 0, "barely better", 1 / 2**4),
        (1, 0, "barely better", 1 / 2),
    ],
)
def test_a_lead_that_may_be_chance_is_named(
    better: int, worse: int, state: str, chance: float
) -> None:
    answers = [0] * (60 - worse) + [1] * (worse + better) + [0] * (40 - better)
    found = check(LABELS, answers)
    assert found is not None
    assert found.state == state
    assert found.chance == pytest.approx(chance)
    said = found.sentence("x.onnx")
    assert (f"right on {60 + better - worse} of 100 clean images" in said) == (state != "better")
    assert (f"p = {chance:.2f}" in said) == (state != "better")


def test_one_that_is_no_better_is_refused_unless_told() -> None:
    answers = [0] * 100
    with pytest.raises(UsageError, match="--allow-weak-reference goes on"):
        check(LABELS, answers)
    found = check(LABELS, answers, allow_weak=True)
    assert found is not None
    assert (found.state, found.chance) == ("no better", 1.0)
    assert "are wrong" in found.sentence("x")


def test_images_of_one_class_ask_nothing() -> None:
    assert check([2, 2, 2], [0, 0, 0]) is None
