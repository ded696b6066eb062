"""The first depthwise convolution: which it is, and that the recipe decides on its precision."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.console import Console
from edgekit.graph.layers import float_layers, quantized_layers
from edgekit.graph.legalize import legalize
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.float_scope import first_depthwise
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.results import CalibrationReport
from edgekit.targets.dialects import DIALECTS
from tests import bundles

Shape = tuple[int, int]  # output channels, inputs of each


def network(*layers: Shape) -> onnx.ModelProto:
    """3 x 3 convolutions one behind the other, ReLUs between them."""
    random = np.random.default_rng(0)
    nodes, constants = [], []
    value, channels = "images", 3
    for place, (outputs, inputs) in enumerate(layers):
        weight = random.normal(0, 0.3, (outputs, inputs, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{place}"))
        bias = random.normal(0, 0.1, outputs).astype(np.float32)
        constants.append(numpy_helper.from_array(bias, f"b{place}"))
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"w{place}", f"b{place}"],
                [f"conv{place}"],
                name=f"conv{place}",
                group=channels // inputs,
                pads=[1, 1, 1, 1],
            )
        )
        value, channels = f"relu{place}", outputs
        nodes.append(helper.make_node("Relu", [f"conv{place}"], [value], name=value))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", kind, ["batch", 3, *bundles.SIZE])],
        [helper.make_tensor_value_info(value, kind, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([(16, 3), (16, 1), (24, 16), (24, 1)], ["conv1"]),  # the first of two
        ([(16, 3), (32, 1), (8, 32)], []),  # two outputs of each input: not as many as channels
        ([(16, 3), (16, 4), (16, 16)], []),  # groups of four, as a ResNeXt has them
        ([(16, 3), (16, 16)], []),
        ([(1, 3), (1, 1)], []),  # one channel: an ordinary convolution
        ([(3, 1), (8, 3)], ["conv0"]),
    ],
)
def test_which_it_is(layers: list[Shape], found: list[str]) -> None:
    assert first_depthwise(network(*layers)) == found


MOBILE = [(16, 3), (16, 1), (24, 16), (24, 1), (8, 24)]


@functools.cache
def calibrated(first: str) -> tuple[onnx.ModelProto, CalibrationReport]:
    recipe = Recipe(images=16, first_depthwise=first)  # type: ignore[arg-type]
    return calibrate(
        network(*MOBILE),
        bundles.images(16, seed=3),
        bundles.images(16, seed=4),
        bundles.made().card.preprocessing,
        recipe,
        DIALECTS["openvino"],
        Console(verbosity=-1),
    )


def test_the_recipe_decides_and_the_report_names_it() -> None:
    model, report = calibrated("float")
    assert (report.quantized, report.kept_float) == (4, 1)
    assert report.not_quantized == ("w1",)
    assert float_layers(model) == ["conv1"]
    model, report = calibrated("int8")
    assert (report.quantized, report.kept_float) == (5, 0)
    assert len(quantized_layers(model)) == 5


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_its_input_is_rounded_nowhere(dialect: str) -> None:
    """In float it reads what the stem computed, whatever the dialect makes of the graph."""
    model = legalize(calibrated("float")[0], DIALECTS[dialect])
    onnx.checker.check_model(model)
    maker = {name: node for node in model.graph.node for name in node.output}
    layer = next(node for node in model.graph.node if node.name == "conv1")
    assert maker[layer.input[0]].op_type == "Relu"
    assert maker[maker[layer.input[0]].input[0]].name == "conv0"
