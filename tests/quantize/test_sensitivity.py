"""Layer by layer: what making a layer float changes, the ranking, and accuracy control."""

import dataclasses
import functools
import json
import threading
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.corruption_grid import variant_cells
from edgekit.data.corruptions import BENCHMARK15
from edgekit.graph.layers import (
    find_layers,
    float_layers,
    quantized_layers,
    weight_names,
    with_float,
)
from edgekit.graph.legalize import legalize
from edgekit.quantize.accuracy_control import control
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.engine import answers, compile_graph, run_compiled
from edgekit.quantize.probe import Probe, difference, margin_change
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.results import Sensitivity
from edgekit.quantize.sensitivity import clipped_shares, cut_points, measure, segment
from edgekit.report.sensitivity import rows, svg
from edgekit.runtime.answers import Answers
from edgekit.targets.dialects import DIALECTS
from tests import bundles
from tests.quantize.graphs import quantized

QUIET = Console(verbosity=-1)


@dataclass(frozen=True)
class Case:
    made: bundles.Made
    original: onnx.ModelProto
    calibrated: onnx.ModelProto
    probe: Probe


@functools.cache
def case() -> Case:
    """The tiny model with the second convolution badly calibrated: 30 x too small a range."""
    made = bundles.made()
    original = onnx.load(made.onnx)
    preprocessing = made.card.preprocessing
    model, _ = calibrate(
        original,
        bundles.images(32, seed=3),
        bundles.images(32, seed=4),
        preprocessing,
        Recipe(images=32, bias_correction="fast"),
        DIALECTS["openvino"],
        QUIET,
    )
    second = next(node for node in model.graph.node if node.name == _layer(original, "second"))
    pair = next(node for node in model.graph.node if second.input[0] in node.output)
    scale = next(t for t in model.graph.initializer if t.name == pair.input[1])
    small = (numpy_helper.to_array(scale) / 30).astype(np.float32)
    scale.CopyFrom(numpy_helper.from_array(small, scale.name))
    count, views = 30, 5
    pixels = bundles.images(count * (views + 1), seed=9).reshape(count, views + 1, *bundles.SIZE, 3)
    flat = pixels.reshape(-1, *pixels.shape[2:])
    said = answers(original, flat, preprocessing).logits.argmax(1).reshape(count, -1)
    cells = variant_cells(count, views, len(BENCHMARK15))
    return Case(made, original, model, Probe(pixels, said[:, 0], cells, BENCHMARK15, preprocessing))


@functools.cache
def ranked() -> Sensitivity:
    return measure(case().calibrated, case().original, case().probe, QUIET)


def _layer(model: onnx.ModelProto, word: str) -> str:
    return next(name for name, weight in weight_names(model).items() if word in weight)


def logits(model: onnx.ModelProto) -> NDArray[np.float32]:
    return answers(model, case().probe.flat(), case().probe.preprocessing).logits


def test_all_layers_in_float_are_the_float_model() -> None:
    this = case()
    names = quantized_layers(this.calibrated)
    assert len(names) == 5
    whole = with_float(this.calibrated, this.original, names)
    assert not any("Quantize" in node.op_type for node in whole.graph.node)
    onnx.checker.check_model(whole)
    assert np.array_equal(logits(whole), logits(this.original))
    assert float_layers(whole) == names


def test_one_layer_in_float_keeps_the_others() -> None:
    this = case()
    second = _layer(this.original, "second")
    model = with_float(this.calibrated, this.original, [second])
    assert quantized_layers(model) == [
        name for name in quantized_layers(this.calibrated) if name != second
    ]
    assert float_layers(model) == [second]
    before, after, exact = (logits(m) for m in (this.calibrated, model, this.original))
    assert np.abs(after - exact).max() < 0.5 * np.abs(before - exact).max()


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_what_went_back_to_float_is_legal_everywhere(dialect: str) -> None:
    this = case()
    model = with_float(this.calibrated, this.original, [_layer(this.original, "second")])
    legal = legalize(model, DIALECTS[dialect])
    onnx.checker.check_model(legal)
    assert float_layers(legal) == float_layers(model)


def test_a_layer_behind_a_pooling_reads_the_float_values_pooled() -> None:
    graph = quantized()
    original = onnx.ModelProto()
    original.CopyFrom(graph)
    for tensor in original.graph.initializer:
        if tensor.name in ("w1", "w2"):
            value = numpy_helper.to_array(tensor).astype(np.float32) * 4e-4
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in original.graph.node:
        for place, name in enumerate(node.input):
            if name in ("w1_dq", "w2_dq"):
                node.input[place] = name.removesuffix("_dq")
    model = with_float(graph, original, ["node_conv2"])
    onnx.checker.check_model(model, full_check=True)
    producer = {name: node for node in model.graph.node for name in node.output}
    conv = producer["conv2"]
    assert producer[conv.input[0]].op_type == "MaxPool"
    assert producer[producer[conv.input[0]].input[0]].op_type == "Relu"
    addition = producer["sum"]  # still reads the 8-bit values
    assert producer[producer[addition.input[1]].input[0]].op_type == "DequantizeLinear"


def test_the_ranking_finds_the_damaged_layer() -> None:
    this, found = case(), ranked()
    worst = found.layers[0]
    assert worst.weights == weight_names(this.original)[_layer(this.original, "second")]
    assert worst.clipped > 0.3
    assert worst.difference.kl > 10 * found.layers[1].difference.kl
    assert worst.difference.code_clean is not None
    assert worst.difference.code_clean < 1
    assert [layer.clipped < 0.1 for layer in found.layers[1:]] == [True] * 4
    assert found.codes is not None
    assert 0 < found.codes.used_by_float <= found.codes.size == 16


def test_starting_in_the_middle_changes_nothing() -> None:
    """The shared prefix is an economy: a layer run from the images gives the same answers."""
    this = case()
    names = quantized_layers(this.calibrated)
    reference = answers(this.original, this.probe.flat(), this.probe.preprocessing)
    for layer in ranked().layers:
        alone = with_float(this.calibrated, this.original, set(names) - {layer.name})
        direct = difference(
            this.probe, reference, answers(alone, this.probe.flat(), this.probe.preprocessing)
        )
        assert direct.kl == pytest.approx(layer.difference.kl, rel=1e-3, abs=1e-7)
        assert direct.code_clean == layer.difference.code_clean


def test_cut_points_separate_the_graph() -> None:
    original = case().original
    cuts = [name for _, name in cut_points(original)]
    assert cuts
    for name in cuts:
        rest = segment(original, name, None, (1, 16, 3, 4))
        assert [value.name for value in rest.graph.input] == [name]
        known = {t.name for t in rest.graph.initializer} | {name}
        for node in rest.graph.node:
            assert set(node.input) <= known | {""}
            known.update(node.output)


def test_clipped_shares_count_what_lies_outside() -> None:
    this = case()
    shares = clipped_shares(this.calibrated, this.original, this.probe)
    assert set(shares) == set(quantized_layers(this.calibrated))
    assert max(shares, key=lambda name: shares[name]) == _layer(this.original, "second")


def test_the_report_is_plain_and_the_plot_is_svg() -> None:
    found = ranked()
    json.dumps(found.to_dict())
    assert rows(found)[0][0] == found.layers[0].weights
    picture = svg(found)
    assert picture.startswith("<svg")
    assert picture.count("<rect") == 1 + len(found.layers)
    text = "\n".join(found.messages())
    assert "are dead here" in text
    part = with_float(case().calibrated, case().original, [found.layers[0].name])
    unquantized = dataclasses.replace(found, not_quantized=tuple(float_layers(part)))
    assert "not quantized: " in unquantized.messages()[-1]


@pytest.mark.parametrize("dialect", ["openvino", "tensorrt"])
def test_control_puts_the_damaged_layer_back_and_no_more(dialect: str) -> None:
    this = case()
    before = ranked().whole.drop("code-agreement")
    assert before is not None
    model, said = control(
        this.calibrated,
        this.original,
        this.probe,
        max_drop=before.estimate / 2,
        metric="code-agreement",
        dialect=DIALECTS[dialect],
        console=QUIET,
    )
    assert said.reverted[0] == ranked().layers[0].weights
    assert len(said.nodes) < 5
    assert said.after.estimate <= before.estimate / 2 < said.before.estimate
    assert float_layers(model) == [n for n in quantized_layers(this.calibrated) if n in said.nodes]
    assert said.reverted[0] in said.message()
    json.dumps(said.to_dict())


def test_control_leaves_a_good_graph_alone() -> None:
    this = case()
    model, said = control(
        this.calibrated,
        this.original,
        this.probe,
        max_drop=100.0,
        metric="corruption-error",
        dialect=DIALECTS["openvino"],
        console=QUIET,
    )
    assert (said.nodes, said.evaluations, said.outcome) == ((), 1, "pass")
    assert model == this.calibrated


def test_corruption_error_needs_labels() -> None:
    this = case()
    with pytest.raises(UsageError, match="needs labels that mean the model's classes"):
        control(
            this.calibrated,
            this.original,
            dataclasses.replace(this.probe, labels=None),
            max_drop=1.0,
            metric="corruption-error",
            dialect=DIALECTS["openvino"],
            console=QUIET,
        )


def test_the_same_graph_differs_in_nothing() -> None:
    this = case()
    said = answers(this.original, this.probe.flat(), this.probe.preprocessing)
    same = difference(this.probe, said, said)
    assert same.kl == 0
    assert same.code_clean == 1
    assert same.clean_error == 0  # its labels are its own answers
    assert same.corruption_change is not None
    assert same.corruption_change.estimate == 0 < same.corruption_change.upper


def test_every_cell_is_met_alike() -> None:
    cells = variant_cells(150, 5, 15)
    assert all(len(set(row)) == 5 for row in cells.tolist())
    assert np.bincount(cells.ravel(), minlength=75).tolist() == [10] * 75
    assert variant_cells(10, 15, 15).shape == (10, 15)
    assert np.bincount(variant_cells(10, 15, 15).ravel(), minlength=75).tolist() == [2] * 75


def test_patterns_name_layers_by_node_or_weights() -> None:
    original = case().original
    second = _layer(original, "second")
    assert find_layers(original, ["*second*"]) == [second]
    assert find_layers(original, [second]) == [second]
    with pytest.raises(
        UsageError, match=r"ignored layer 'backbone\.secnd\*' matches .* nearest is '.*second"
    ):
        find_layers(original, ["backbone.secnd*"])


def test_margins_that_change_sides_count_as_negative() -> None:
    logits = np.zeros((3, 2), np.float32)
    reference = Answers(logits, np.array([1, 2, 3]), np.array([1.0, 2.0, 0.5], np.float32))
    moved = Answers(logits, np.array([1, 2, 0]), np.array([4.0, 2.0, 0.5], np.float32))
    assert margin_change(reference, reference) == 0
    assert margin_change(reference, moved) == pytest.approx(np.sqrt((9 + 0 + 1) / 3))
    assert margin_change(reference, Answers(logits, None, None)) is None


def test_without_a_codebook_layers_are_ranked_by_divergence() -> None:
    layer = ranked().layers[0]
    plain = dataclasses.replace(layer.difference, margin_change=None)
    assert layer.harm == layer.difference.margin_change != layer.difference.kl
    assert dataclasses.replace(layer, difference=plain).harm == layer.difference.kl


def test_inferences_come_in_order_and_start_no_threads_of_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One such thread in some thousands never hears that it has started (glibc before 2.41)."""
    this = case()
    images = this.probe.preprocessing.normalize(this.probe.flat()[:40])
    batches = [{"images": image[np.newaxis]} for image in images]
    compiled = compile_graph(this.original)
    monkeypatch.setattr(threading.Thread, "start", None)
    found = run_compiled(compiled, batches)
    apart = [run_compiled(compiled, [batch])[0] for batch in batches]
    assert len(found) == 40
    for one, other in zip(found, apart, strict=True):
        assert np.array_equal(one["logits"], other["logits"])
    assert run_compiled(compiled, []) == []
