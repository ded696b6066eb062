"""OpenVINO's fault with 8-bit weights on float input, in its smallest form, and what guards us.

A 1x1 convolution with int8 weights that reads float values behind Relu and MaxPool, beside a
float sibling: with two streams, in more than half of the compilations the weights' scale is lost.
"""

from __future__ import annotations

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.errors import EdgekitError
from edgekit.graph.layers import float_fed
from edgekit.graph.lint import check_model
from edgekit.quantize.engine import compile_graph
from edgekit.runtime.openvino_core import shared_core
from edgekit.targets.dialects import DIALECTS

CHANNELS = 64


def graph(*, quantized_input: bool = False) -> onnx.ModelProto:
    """Relu, MaxPool, then a 1x1 convolution in int8 and one in float."""
    random = np.random.default_rng(0)
    constants = {
        "w8": random.integers(-127, 128, (CHANNELS, CHANNELS, 1, 1)).astype(np.int8),
        "ws": random.uniform(5e-4, 2e-3, CHANNELS).astype(np.float32),
        "wz": np.zeros(CHANNELS, np.int8),
        "w": random.normal(0, 0.1, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32),
        "xs": np.array(0.05, np.float32),
        "xz": np.array(0, np.uint8),
    }
    nodes = [helper.make_node("Relu", ["images"], ["r"], name="relu")]
    source = "r"
    if quantized_input:
        nodes += [
            helper.make_node("QuantizeLinear", ["r", "xs", "xz"], ["x8"], name="q"),
            helper.make_node("DequantizeLinear", ["x8", "xs", "xz"], ["xd"], name="d"),
        ]
        source = "xd"
    nodes += [
        helper.make_node(
            "MaxPool", [source], ["p"], name="pool", kernel_shape=[3, 3], strides=[2, 2],
            pads=[1, 1, 1, 1],
        ),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wd"], name="dw", axis=0),
        helper.make_node("Conv", ["p", "wd"], ["y8"], name="int8"),
        helper.make_node("Conv", ["p", "w"], ["y"], name="float"),
    ]  # fmt: skip
    kind = TensorProto.FLOAT
    proto = helper.make_graph(
        nodes,
        "fault",
        [helper.make_tensor_value_info("images", kind, ["batch", CHANNELS, 28, 28])],
        [helper.make_tensor_value_info(name, kind, None) for name in ("y8", "y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.every_core
def test_a_release_that_has_mended_it_is_noticed() -> None:
    """When this fails, OpenVINO computes the graph rightly and `float_fed` may go."""
    model = shared_core().read_model(graph().SerializeToString())
    images = np.random.default_rng(1).uniform(0, 4, (2, CHANNELS, 28, 28)).astype(np.float32)
    wrong = 0
    for _ in range(40):
        compiled = shared_core().compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "NUM_STREAMS": 2,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        found = compiled({"images": images})["y8"]
        exact = _exact(images)
        wrong += not np.abs(found - exact).max() < 0.05 * np.abs(exact).max()
        if wrong:
            break
    assert wrong, f"OpenVINO {ov.get_version()} got it right 40 times"


def _exact(images: np.ndarray) -> np.ndarray:
    stored = {t.name: numpy_helper.to_array(t) for t in graph().graph.initializer}
    padded = np.pad(
        np.maximum(images, 0), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf
    )
    pooled = np.full((len(images), CHANNELS, 14, 14), -np.inf, np.float32)
    for y in range(3):
        for x in range(3):
            pooled = np.maximum(pooled, padded[:, :, y : y + 27 : 2, x : x + 27 : 2])
    weights = stored["w8"].astype(np.float32)[:, :, 0, 0] * stored["ws"][:, None]
    result: np.ndarray = np.einsum("oc,bchw->bohw", weights, pooled)
    return result


def test_nothing_of_the_kind_is_measured() -> None:
    assert [node.name for node in float_fed(graph())] == ["int8"]
    with pytest.raises(EdgekitError, match="convolution int8 has 8-bit weights and float input"):
        compile_graph(graph())


def test_behind_a_pair_it_is_another_graph() -> None:
    assert not float_fed(graph(quantized_input=True))
    compile_graph(graph(quantized_input=True))


@pytest.mark.parametrize("dialect", ["openvino", "openvino-novnni"])
def test_the_lint_refuses_it(dialect: str) -> None:
    findings = [f for f in check_model(graph(), DIALECTS[dialect]) if f.severity == "error"]
    assert [(f.rule, f.node) for f in findings] == [("float-input", "int8")]
    assert "float-input" not in {
        f.rule for f in check_model(graph(quantized_input=True), DIALECTS[dialect])
    }


def test_other_runtimes_take_it() -> None:
    assert "float-input" not in {f.rule for f in check_model(graph(), DIALECTS["onnxruntime"])}
