"""When an INT8 model counts as another one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.data.transforms import Preprocessing
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


@pytest.mark.parametrize(("different", "passes"), [(0, True), (3, True), (4, False), (6, False)])
def test_corrupted_views_do_not_hide_clean_ones(different: int, passes: bool) -> None:
    """Of six clean and twelve corrupted views, at most six differ: a third of all."""
    views = np.arange(18) % 3 == 0
    candidate = np.zeros(18, np.int64)
    candidate[np.flatnonzero(views)[:different]] = 1
    found = closeness(said([0] * 18), said([*candidate]), clean=views)
    assert found.clean_top1_equal == pytest.approx(1 - different / 6)
    assert found.passed is passes
    assert f"({1 - different / 6:.1%} of the clean ones)" in found.describe()
    assert closeness(said([0] * 18), said([*candidate])).passed


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


def test_onnxruntime_computes_scales_by_channel() -> None:
    """Its integer kernels fail at the graphs that OpenVINO gets for depthwise convolutions."""
    text = """
        <ir_version: 8, opset_import: ["" : 18]>
        depthwise (float[n, 3, 8, 8] images) => (float[n, 3] logits)
        <float[3] scale = {0.02, 0.03, 0.04}, uint8[3] zero = {120, 128, 110},
         float one = {0.05}, uint8 middle = {128},
         float[3] step = {0.01, 0.02, 0.01}, int8[3] none = {0, 0, 0},
         int8[3, 1, 1, 1] weights = {50, -20, 90}>
        {
            stored = QuantizeLinear <axis = 1> (images, scale, zero)
            read = DequantizeLinear <axis = 1> (stored, scale, zero)
            kernel = DequantizeLinear <axis = 0> (weights, step, none)
            map = Conv <group = 3> (read, kernel)
            kept = QuantizeLinear (map, one, middle)
            rounded = DequantizeLinear (kept, one, middle)
            pooled = GlobalAveragePool (rounded)
            logits = Flatten (pooled)
        }
    """
    graph = onnx.parser.parse_model(text)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    preprocessing = Preprocessing(size=(8, 8), crop_ratio=1.0)
    exact = onnxruntime_answers(graph, pixels, preprocessing, optimized=False)
    optimized = onnxruntime_answers(graph, pixels, preprocessing)
    assert closeness(exact, optimized).logits_rms < 0.02
