"""An INT8 graph computed in float32, on exactly the values that its 8 bits can represent.

Sums of 8-bit products are whole numbers, which float32 adds to within its own rounding. So
calibration decides the same on every machine (those without VNNI add in 16 bits, which saturate),
however a runtime lays out its integers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.graph.view import Graph, attributes, constants, copied, drop_unused, set_nodes


def in_float(model: onnx.ModelProto, readers: Collection[str] | None = None) -> onnx.ModelProto:
    """A copy of ``model`` whose 8-bit weights are stored as the same values in float32.

    The activations' Q/DQ pairs stay and round as before. ``readers`` restricts this to weights
    that only operators of these types read.
    """
    result = copied(model)
    make_float(result, readers)
    return result


def make_float(model: onnx.ModelProto, readers: Collection[str] | None = None) -> None:
    """`in_float` in place."""
    graph = Graph(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        is_weight = node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
        kinds = {reader.op_type for reader in graph.readers.get(node.output[0], [])}
        if not is_weight or not (readers is None or kinds <= set(readers)):
            nodes.append(node)
            continue
        stored = [numpy_helper.to_array(graph.constants[name]) for name in node.input]
        model.graph.initializer.append(
            numpy_helper.from_array(_dequantized(node, stored), node.output[0])
        )
    set_nodes(model.graph, nodes)
    drop_unused(model)


def has_8_bit_weights(model: onnx.ModelProto) -> bool:
    """Whether anything is stored in 8 bits."""
    stored = constants(model)
    return any(
        node.op_type == "DequantizeLinear" and node.input[0] in stored for node in model.graph.node
    )


def represented(graph: Graph, name: str) -> NDArray[Any] | None:
    """What a stored value stands for, be it in floats or in 8 bits; None if it is computed."""
    origin, orders = _origin(graph, name)
    inputs = _stored_inputs(graph, origin)
    if not inputs:
        return None
    arrays = [numpy_helper.to_array(each) for each in inputs]
    node = graph.producer.get(origin)
    value = arrays[0] if node is None else _dequantized(node, arrays)
    for order in orders:
        value = value.transpose(order)
    return value


def represented_shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    """The shape of what `represented` returns, without computing it."""
    origin, orders = _origin(graph, name)
    inputs = _stored_inputs(graph, origin)
    if not inputs:
        return None
    shape = tuple(inputs[0].dims)
    for order in orders:
        shape = shape[::-1] if order is None else tuple(shape[axis] for axis in order)
    return shape


def _origin(graph: Graph, name: str) -> tuple[str, list[Sequence[int] | None]]:
    """Where a value comes from, and the transpositions on its way, the first one first.

    Exporters may pass weights on under another name, or transposed.
    """
    orders: list[Sequence[int] | None] = []
    while (node := graph.producer.get(name)) and node.op_type in ("Identity", "Transpose"):
        if node.op_type == "Transpose":
            orders.insert(0, attributes(node).get("perm"))
        name = node.input[0]
    return name, orders


def _stored_inputs(graph: Graph, name: str) -> list[onnx.TensorProto]:
    """The tensors that a stored value consists of, its levels first; none if it is computed."""
    node, stored = graph.producer.get(name), graph.constants
    names = [name] if node is None else node.input
    if (node is not None and node.op_type != "DequantizeLinear") or any(
        each not in stored for each in names
    ):
        return []
    return [stored[each] for each in names]


def _dequantized(node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
    levels, scale = inputs[0].astype(np.float32), inputs[1].astype(np.float32)
    zero = inputs[2].astype(np.float32) if len(inputs) > 2 else np.zeros_like(scale)
    if scale.size > 1:
        shape = [1] * levels.ndim
        shape[attributes(node).get("axis", 1)] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((levels - zero) * scale, np.float32)
