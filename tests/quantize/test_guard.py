"""When an INT8 model counts as another one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.quantize.engine import answers
from edgekit.quantize.guard import closeness, onnxruntime_answers
from edgekit.runtime.answers import Answers
from tests import bundles


def said(top: list[int], code: list[int] | None = None, scale: float = 1.0) -> Answers:
    logits = scale * np.eye(10, dtype=np.float32)[top]
    return Answers(logits, None if code is None else np.array(code), None)


def test_equal_answers_are_close() -> None:
    found = closeness(said([1, 2, 3], [4, 5, 6]), said([1, 2, 3], [4, 5, 6]))
    assert (found.logits_rms, found.top1_equal, found.codes_equal) == (0, 1, 1)
    assert found.passed


@pytest.mark.parametrize(("different", "passes"), [(0, True), (3, True), (4, False), (9, False)])
def test_more_than_a_third_of_other_answers_is_another_model(different: int, passes: bool) -> None:
    candidate = [1] * different + [0] * (9 - different)
    assert closeness(said([0] * 9), said(candidate)).passed is passes


def test_numbers_that_are_none_fail() -> None:
    broken = said([1, 2, 3])
    broken.logits[:] = np.nan
    found = closeness(said([1, 2, 3]), broken)
    assert found.top1_equal == 0
    assert not found.passed


def test_the_scale_of_the_logits_shows_in_their_rms() -> None:
    assert closeness(said([1, 2]), said([1, 2], scale=1.5)).logits_rms == pytest.approx(0.5)


def test_codes_are_told_but_do_not_decide() -> None:
    found = closeness(said([1, 2], [4, 5]), said([1, 2], [4, 6]))
    assert found.codes_equal == 0.5
    assert found.passed
    assert "50.0% of codes" in found.describe()


def test_both_runtimes_agree_on_a_float_graph() -> None:
    made = bundles.made()
    graph, images = onnx.load(made.onnx), bundles.images(20)
    ours = onnxruntime_answers(graph, images, made.card.preprocessing)
    theirs = answers(graph, images, made.card.preprocessing)
    assert closeness(theirs, ours).logits_rms < 1e-4
    assert closeness(theirs, ours).codes_equal == 1
