"""The mean of a convolution's outputs is what its weights make of the mean patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.graph.view import add_outputs
from edgekit.quantize.bias import mean_outputs
from edgekit.quantize.engine import compile_graph, run_compiled
from edgekit.quantize.mean_patches import add_mean_patch


@pytest.mark.parametrize(
    ("kernel", "groups", "options"),
    [
        ((1, 1), 1, {}),
        ((1, 1), 1, {"strides": [2, 3]}),
        ((3, 3), 1, {"pads": [1, 1, 1, 1]}),
        ((3, 3), 4, {"pads": [1, 1, 1, 1], "auto_pad": "NOTSET"}),
        ((3, 2), 2, {"pads": [0, 2, 1, 0], "strides": [2, 1]}),
        ((3, 3), 1, {"pads": [2, 2, 2, 2], "dilations": [2, 3]}),
        ((7, 7), 1, {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
        ((5, 4), 1, {"auto_pad": "VALID"}),
        ((13, 11), 4, {}),  # a single position
    ],
)
@pytest.mark.parametrize("version", [13, 18])
def test_the_mean_is_that_over_all_positions(
    kernel: tuple[int, int], groups: int, options: dict[str, Any], version: int
) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(0, 1, (16, 4 // groups, *kernel)).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=groups, **options)
    model = helper.make_model(
        helper.make_graph(
            [conv],
            "convolution",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 13, 11])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=10,
    )
    add_mean_patch(model, conv, kernel, "x", "patch")
    onnx.checker.check_model(model)
    add_outputs(model, ["patch"])
    images = {"x": random.normal(1, 1, (3, 4, 13, 11)).astype(np.float32)}
    (found,) = run_compiled(compile_graph(model), [images])
    assert found["patch"].shape == (3, 4, *kernel)
    means = mean_outputs(conv, found["patch"].astype(np.float64), weight)
    np.testing.assert_allclose(means, found["y"].mean(axis=(2, 3)), atol=2e-5)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_product_takes_its_weights_as_they_are_stored(transposed: int, alpha: float) -> None:
    random = np.random.default_rng(0)
    inputs, weight = random.normal(0, 1, (3, 5)), random.normal(0, 1, (5, 2))
    product = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed, alpha=alpha)
    found = mean_outputs(product, inputs, weight.T if transposed else weight)
    np.testing.assert_allclose(found, alpha * inputs @ weight)
