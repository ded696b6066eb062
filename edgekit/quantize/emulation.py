"""An INT8 graph computed in float32, on the very values that its 8 bits can hold.

Sums of 8-bit products are whole numbers, which float32 adds to within its own rounding. So what
calibration decides does not depend on the instructions of the machine it runs on (those without
VNNI add in 16 bits, which saturate), nor on how a runtime arranges its integers.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.graph.view import Graph, attributes, copied, drop_unused, set_nodes


def in_float(model: onnx.ModelProto, readers: Collection[str] | None = None) -> onnx.ModelProto:
    """A copy of ``model`` whose stored 8-bit weights are float32 numbers of the same values.

    The pairs of the activations stay: they round as before. With ``readers`` only the weights that
    operators of these kinds read.
    """
    result = copied(model)
    make_float(result, readers)
    return result


def make_float(model: onnx.ModelProto, readers: Collection[str] | None = None) -> None:
    """`in_float` in place."""
    graph = Graph(model)
    kept: list[onnx.NodeProto] = []
    for node in graph.nodes:
        weights = node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
        kinds = {reader.op_type for reader in graph.readers.get(node.output[0], [])}
        if not weights or not (readers is None or kinds <= set(readers)):
            kept.append(node)
            continue
        stored = [numpy_helper.to_array(graph.constants[name]) for name in node.input]
        model.graph.initializer.append(
            numpy_helper.from_array(_dequantized(node, stored), node.output[0])
        )
    set_nodes(model.graph, kept)
    drop_unused(model)


def _dequantized(node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
    levels, scale = inputs[0].astype(np.float32), inputs[1].astype(np.float32)
    zero = inputs[2].astype(np.float32) if len(inputs) > 2 else np.zeros_like(scale)
    if scale.size > 1:
        shape = [1] * levels.ndim
        shape[attributes(node).get("axis", 1)] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((levels - zero) * scale, np.float32)
