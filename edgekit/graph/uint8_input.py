"""Lets a float graph take uint8 images: a deployed model normalizes them itself."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.data.transforms import Preprocessing
from edgekit.graph.view import replace_input, set_nodes

INPUT: Final = "images"
_PREFIX: Final = "edgekit/normalize"


def add_uint8_input(graph: onnx.GraphProto, preprocessing: Preprocessing) -> None:
    """Prepend `Preprocessing.normalize`: the input becomes RGB uint8 [B, height, width, 3]."""
    stored = {tensor.name for tensor in graph.initializer}
    (old,) = [value for value in graph.input if value.name not in stored]
    batch = old.type.tensor_type.shape.dim[0]
    inner = f"{_PREFIX}/done"
    replace_input(graph.node, old.name, inner)
    new = helper.make_tensor_value_info(
        INPUT,
        TensorProto.UINT8,
        [batch.dim_param or batch.dim_value or "batch", *preprocessing.size, 3],
    )
    del graph.input[:]
    graph.input.append(new)
    nodes, constants = _normalization(preprocessing, inner)
    set_nodes(graph, [*nodes, *graph.node])
    graph.initializer.extend(constants)


def _normalization(
    preprocessing: Preprocessing, result: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Order the channels as the model does, subtract the mean, divide by std, transpose to NCHW."""
    constants = [
        numpy_helper.from_array(np.array(preprocessing.mean, np.float32), f"{_PREFIX}/mean"),
        numpy_helper.from_array(np.array(preprocessing.std, np.float32), f"{_PREFIX}/std"),
    ]
    # The cast comes first: TensorRT can do nothing else with uint8.
    nodes = [_node("Cast", [INPUT], "float", to=TensorProto.FLOAT)]
    if preprocessing.channel_order == "BGR":
        order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), f"{_PREFIX}/order")
        constants.append(order)
        nodes.append(_node("Gather", [nodes[-1].output[0], order.name], "bgr", axis=3))
    nodes.append(_node("Sub", [nodes[-1].output[0], f"{_PREFIX}/mean"], "centered"))
    nodes.append(_node("Div", [f"{_PREFIX}/centered", f"{_PREFIX}/std"], "scaled"))
    nodes.append(_node("Transpose", [f"{_PREFIX}/scaled"], "done", perm=[0, 3, 1, 2]))
    assert nodes[-1].output[0] == result
    return nodes, constants


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    name = f"{_PREFIX}/{output}"
    return helper.make_node(kind, inputs, [name], name=name, **attributes)
