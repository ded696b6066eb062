"""The one type of answers: taken apart, joined, and asked for in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.runtime.answers import Answers, in_chunks, join


def infer(batch: NDArray[np.uint8]) -> Answers:
    """Codes of two positions an image; a quarter of a second each."""
    value = batch.reshape(len(batch), -1)[:, 0].astype(np.float32)
    return Answers(
        np.stack([value, -value], axis=1),
        np.stack([value, value + 1], axis=1).astype(np.int64),
        None,
        0.25 * len(batch),
    )


def images(count: int) -> NDArray[np.uint8]:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 9])
def test_pieces_give_what_the_whole_gives(size: int) -> None:
    sizes: list[int] = []

    def counted(batch: NDArray[np.uint8]) -> Answers:
        sizes.append(len(batch))
        return infer(batch)

    found, whole = in_chunks(counted, images(5), size), infer(images(5))
    assert np.array_equal(found.logits, whole.logits)
    assert found.code is not None
    assert whole.code is not None
    assert np.array_equal(found.code, whole.code)
    assert found.margin is None
    assert found.seconds == whole.seconds
    assert max(sizes) == (min(size, 5) or 5)


def test_no_images_have_answers_of_the_right_shapes() -> None:
    found = in_chunks(infer, images(0), 4)
    assert found.logits.shape == (0, 2)
    assert found.code is not None
    assert found.code.shape == (0, 2)
    assert found.seconds == 0


def test_parts_are_joined_again() -> None:
    whole = infer(images(6))
    again = join([whole.part(slice(0, 2)), whole.part(np.array([2, 3, 4, 5]))])
    assert np.array_equal(again.logits, whole.logits)
    assert Answers.of(whole.arrays(), 1.5).seconds == 1.5
    assert sorted(whole.arrays()) == ["code", "logits"]


def test_what_a_foreign_graph_answers_comes_first() -> None:
    first, second = np.zeros((1, 3), np.float32), np.ones((1, 9), np.float32)
    assert Answers.of({"output_0": first, "features": second}).logits is first
    assert Answers.of({"features": second, "logits": first}).logits is first
