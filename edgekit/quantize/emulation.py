"""An INT8 graph computed in float32, on the very values that its 8 bits can hold.

Sums of 8-bit products are whole numbers, which float32 adds to within its own rounding. So what
calibration decides does not depend on the instructions of the machine it runs on (those without
VNNI add in 16 bits, which saturate), nor on how a runtime arranges its integers.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper


def in_float(model: onnx.ModelProto, readers: Collection[str] | None = None) -> onnx.ModelProto:
    """A copy of ``model`` whose stored 8-bit weights are float32 numbers of the same values.

    The pairs of the activations stay: they round as before. With ``readers`` only the weights that
    operators of these kinds read.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    kept: list[onnx.NodeProto] = []
    spent: set[str] = set()
    read_by: dict[str, set[str]] = {}
    for node in result.graph.node:
        for name in node.input:
            read_by.setdefault(name, set()).add(node.op_type)
    for node in result.graph.node:
        weights = node.op_type == "DequantizeLinear" and node.input[0] in stored
        if not weights or not (readers is None or read_by[node.output[0]] <= set(readers)):
            kept.append(node)
            continue
        spent.update(node.input)
        values = _dequantized(node, [numpy_helper.to_array(stored[name]) for name in node.input])
        result.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del result.graph.node[:]
    result.graph.node.extend(kept)
    needed = {name for node in kept for name in node.input}
    for place in reversed(range(len(result.graph.initializer))):
        name = result.graph.initializer[place].name
        if name in spent and name not in needed:
            del result.graph.initializer[place]
    return result


def _dequantized(node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
    levels, scale = inputs[0].astype(np.float32), inputs[1].astype(np.float32)
    zero = inputs[2].astype(np.float32) if len(inputs) > 2 else np.zeros_like(scale)
    if scale.size > 1:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        shape = [1] * levels.ndim
        shape[attributes.get("axis", 1)] = scale.size
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((levels - zero) * scale, np.float32)
