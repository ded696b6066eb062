"""An INT8 graph in float32 computes what its integers do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgekit.graph.view import Graph
from edgekit.quantize.emulation import in_float, represented, represented_shape
from tests.quantize.graphs import quantized


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": images})
    return np.asarray(found)


@pytest.mark.parametrize("zero_point", [0, 3])
def test_it_gives_the_same_answers(zero_point: int) -> None:
    model = quantized(zero_point=zero_point, by_channel=False)
    images = np.random.default_rng(0).normal(0, 1, (4, 3, 8, 8)).astype(np.float32)
    emulated = in_float(model)
    onnx.checker.check_model(emulated, full_check=True)
    assert np.abs(run(emulated, images) - run(model, images)).max() < 1e-5


def test_only_weights_change() -> None:
    model = quantized()
    emulated = in_float(model)
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    stored = {tensor.name for tensor in model.graph.initializer}
    weights = [node for node in weights if node.input[0] in stored]
    assert len(model.graph.node) - len(emulated.graph.node) == len(weights) == 2
    kinds = {tensor.name: tensor.data_type for tensor in emulated.graph.initializer}
    assert all(kinds[node.output[0]] == onnx.TensorProto.FLOAT for node in weights)
    assert not {"w1", "w2", "w1_scale"} & set(kinds)


@pytest.mark.parametrize("orders", [(), (None,), ([2, 0, 1, 3], [3, 0, 1, 2])])
def test_the_shape_of_weights_needs_none_of_their_values(
    orders: tuple[list[int] | None, ...],
) -> None:
    """With or without a name of their own, and however often they are turned."""
    levels = np.arange(120, dtype=np.int8).reshape(2, 3, 4, 5)
    nodes = [helper.make_node("DequantizeLinear", ["levels", "scale"], ["w0"])]
    for place, order in enumerate(orders):
        turn = {} if order is None else {"perm": order}
        nodes.append(helper.make_node("Transpose", [f"w{place}"], [f"t{place}"], **turn))
        nodes.append(helper.make_node("Identity", [f"t{place}"], [f"w{place + 1}"]))
    stored = [
        numpy_helper.from_array(levels, "levels"),
        numpy_helper.from_array(np.float32(0.5), "scale"),
    ]
    graph = helper.make_graph(nodes, "g", [], [], stored)
    last = f"w{len(orders)}"
    expected = levels * np.float32(0.5)
    for order in orders:
        expected = expected.transpose(order)
    found = represented(Graph(helper.make_model(graph)), last)
    assert found is not None
    np.testing.assert_array_equal(found, expected)
    for tensor in graph.initializer:
        tensor.ClearField("raw_data")
    view = Graph(helper.make_model(graph))
    assert represented_shape(view, last) == expected.shape
    assert represented_shape(view, "absent") is None
