"""NNCF's calibration of a real exported model: what is quantized, what stays float, how well."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.graph.legalize import legalize
from edgekit.quantize.calibrate import _Counted, calibrate
from edgekit.quantize.float_scope import head_nodes
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.results import CalibrationReport
from edgekit.targets.dialects import DIALECTS
from tests import bundles

RECIPE = Recipe(images=48)


@dataclass(frozen=True)
class Calibrated:
    made: bundles.Made
    float_graph: onnx.ModelProto
    graph: onnx.ModelProto
    report: CalibrationReport


def run(made: bundles.Made, recipe: Recipe = RECIPE, dialect: str = "openvino") -> Calibrated:
    graph = onnx.load(made.onnx)
    images = bundles.images(recipe.images, seed=3)
    preprocessing = made.card.preprocessing
    result, report = calibrate(
        graph,
        images,
        bundles.images(32, seed=4),
        preprocessing,
        recipe,
        DIALECTS[dialect],
        Console(verbosity=-1),
    )
    return Calibrated(made, graph, result, report)


@pytest.fixture(scope="module", params=["pooled", "spatial"])
def calibrated(request: pytest.FixtureRequest) -> Calibrated:
    return run(bundles.made(quantize=request.param))


def answers(graph: onnx.ModelProto, made: bundles.Made, count: int = 64) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    images = made.card.preprocessing.normalize(bundles.images(count, seed=9))
    found: list[NDArray] = session.run(["logits", "code"], {"images": images})
    return found


def test_int8_stays_close_to_float(calibrated: Calibrated) -> None:
    before = answers(calibrated.float_graph, calibrated.made)
    after = answers(calibrated.graph, calibrated.made)
    error = np.abs(after[0] - before[0]).max() / np.abs(before[0]).max()
    assert 0 < error < 0.1
    # Random weights make close calls; a broken calibration would agree by chance, 1 in 16.
    assert (after[1] == before[1]).mean() > 0.7


def test_the_lookup_and_the_attention_stay_float(calibrated: Calibrated) -> None:
    graph = calibrated.graph
    assert [function.name for function in graph.functions] == ["CodebookLookup"]
    dequantized = {
        name
        for node in graph.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    kept = set(head_nodes(calibrated.float_graph))
    assert {"CodebookLookup", "Sigmoid"} <= {
        node.op_type for node in calibrated.float_graph.graph.node if node.name in kept
    }
    for node in graph.graph.node:
        if node.name in kept:
            assert not dequantized & set(node.input), node.name
    products = [node for node in graph.graph.node if node.op_type in ("Gemm", "MatMul")]
    assert len(products) == 2  # the folded projection and the classifier
    for node in products:
        assert node.input[0] in dequantized, node.name
        assert node.input[1] in dequantized, node.name
    assert calibrated.report.quantized == 5
    assert calibrated.report.kept_float == 0


def test_the_report_counts_and_says(calibrated: Calibrated) -> None:
    report = calibrated.report
    assert report.images == 48
    assert 100 < report.peak_mb < 20_000
    assert "calibrated on 48 images" in report.message()
    assert "5 convolutions and products in INT8, 0 in float" in report.message()


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_dialect_runs_alike(calibrated: Calibrated, name: str) -> None:
    legal = legalize(calibrated.graph, DIALECTS[name])
    onnx.checker.check_model(legal)
    before = answers(calibrated.graph, calibrated.made)
    after = answers(legal, calibrated.made)
    error = np.abs(after[0] - before[0]).max() / np.abs(before[0]).max()
    assert error < (0.1 if DIALECTS[name].rewrites else 1e-6)


def test_mixed_zero_points_are_refused_for_tensorrt() -> None:
    mixed = run(bundles.made(), Recipe(images=8, preset="mixed", bias_correction="none"))
    with pytest.raises(EdgekitError, match="TensorRT takes only 0: calibrate with preset"):
        legalize(mixed.graph, DIALECTS["tensorrt"])
    with pytest.raises(UsageError, match="zero-point 0 only"):  # before minutes are spent
        run(bundles.made(), Recipe(images=8, preset="mixed"), "tensorrt")


def test_without_vnni_all_weights_keep_to_half_the_range() -> None:
    recipe = Recipe(images=8, bias_correction="none")

    def largest(dialect: str) -> list[int]:
        graph = run(bundles.made(), recipe, dialect).graph.graph
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        read = [stored[node.input[0]] for node in graph.node if node.input[0] in stored]
        return [
            int(np.abs(array.astype(int)).max())
            for array in read
            if array.dtype == np.int8 and array.ndim > 1
        ]

    assert min(largest("openvino")) >= 127
    assert len(largest("openvino-novnni")) == len(largest("openvino")) > 3
    assert max(largest("openvino-novnni")) <= 64


def test_a_model_without_codebook_is_quantized_whole() -> None:
    plain = run(bundles.made(plain=True), Recipe(images=8, bias_correction="none"))
    assert head_nodes(plain.float_graph) == []
    assert plain.report.kept_float == 0


@pytest.mark.parametrize("statistics", ["minmax", "percentile", "mse"])
def test_statistics_change_the_ranges(statistics: str) -> None:
    def scales(recipe: Recipe) -> list[float]:
        graph = run(bundles.made(), recipe).graph.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        return [
            float(onnx.numpy_helper.to_array(stored[node.input[1]]).max())
            for node in graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] not in stored
        ]

    base = Recipe(images=16, bias_correction="none")
    before = scales(base)
    after = scales(
        dataclasses.replace(base, statistics=statistics, percentile=95.0)  # type: ignore[arg-type]
    )
    assert len(after) == len(before)
    assert after != before
    if statistics == "minmax":  # the extremes of all are beyond their mean
        assert all(b >= a * 0.999 for a, b in zip(before, after, strict=True))
    if statistics == "percentile":
        assert all(b <= a * 1.001 for a, b in zip(before, after, strict=True))


def test_ignored_layers_stay_float_and_are_named() -> None:
    recipe = Recipe(images=8, bias_correction="none", ignored=("*second*",))
    report = run(bundles.made(), recipe).report
    assert (report.quantized, report.kept_float) == (4, 1)
    assert report.not_quantized == ("backbone.second.weight",)
    assert "1 in float (backbone.second.weight)" in report.message()


@pytest.mark.parametrize("bias_correction", ["none", "full"])
def test_smooth_quant_still_gives_the_same_model(bias_correction: Literal["none", "full"]) -> None:
    """It scales what is rounded; the biases are then corrected for what is rounded so."""
    recipe = Recipe(images=16, bias_correction=bias_correction, smooth_quant=0.5)
    smoothed = run(bundles.made(), recipe)
    assert smoothed.report.corrected == (4 if bias_correction == "full" else 0)
    before = answers(smoothed.float_graph, smoothed.made)
    after = answers(smoothed.graph, smoothed.made)
    assert np.abs(after[0] - before[0]).max() / np.abs(before[0]).max() < 0.15


def test_stdout_stays_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(bundles.made(), Recipe(images=8))
    assert capsys.readouterr().out == ""


def test_progress_is_over_with_the_last_image(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a dropped generator says is said where Ctrl-C is ignored."""
    taken = iter(_Counted(lambda: iter("abc"), 3, Console()))
    assert [next(taken) for _ in range(2)] == ["a", "b"]
    assert capsys.readouterr().err == ""
    assert next(taken) == "c"
    assert capsys.readouterr().err.startswith("calibrate: 3/3 in ")
    with pytest.raises(StopIteration):
        next(taken)
    assert capsys.readouterr().err == ""
