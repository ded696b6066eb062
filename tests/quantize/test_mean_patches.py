"""The mean of a convolution's outputs is computed from the mean of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.quantize.engine import compile_graph, run_compiled
from edgekit.quantize.mean_patches import average_inputs, can_average


@pytest.mark.parametrize(
    ("kernel", "groups", "options"),
    [
        ((1, 1), 1, {}),
        ((1, 1), 1, {"strides": [2, 3]}),
        ((3, 3), 1, {"pads": [1, 1, 1, 1]}),
        ((3, 2), 2, {"pads": [0, 2, 1, 0], "strides": [2, 1]}),
        ((3, 3), 1, {"pads": [2, 2, 2, 2], "dilations": [2, 3]}),
        ((7, 7), 1, {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    ],
)
@pytest.mark.parametrize("version", [13, 18])
def test_the_mean_is_that_over_all_positions(
    kernel: tuple[int, int], groups: int, options: dict[str, Any], version: int
) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(0, 1, (16, 4 // groups, *kernel)).astype(np.float32)
    constants = {"w": weight, "b": random.normal(0, 1, 16).astype(np.float32)}
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", group=groups, **options)
    model = helper.make_model(
        helper.make_graph(
            [conv],
            "convolution",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 13, 11])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=10,
    )
    averaged = onnx.ModelProto()
    averaged.CopyFrom(model)
    assert can_average(conv, weight.shape)
    node = averaged.graph.node.pop()
    average_inputs(averaged, node, weight.shape)
    averaged.graph.node.append(node)
    onnx.checker.check_model(averaged)
    images = {"x": random.normal(1, 1, (3, 4, 13, 11)).astype(np.float32)}
    exact, found = (
        run_compiled(compile_graph(graph), [images])[0]["y"] for graph in (model, averaged)
    )
    assert found.shape == (3, 16, 1, 1)
    np.testing.assert_allclose(found[..., 0, 0], exact.mean(axis=(2, 3)), atol=1e-5)


def test_what_gains_nothing_is_left_alone() -> None:
    depthwise = helper.make_node("Conv", ["x", "w"], ["y"], group=32)
    assert not can_average(depthwise, (32, 1, 5, 5))
    assert not can_average(helper.make_node("Conv", ["x", "w"], ["y"]), (32, 16, 5))
    unknown = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")
    assert not can_average(unknown, (32, 16, 3, 3))
