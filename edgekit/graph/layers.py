"""The quantized layers of a calibrated graph: finding them, and turning some back to float.

A *layer* is a node that reads 8-bit data: a convolution, a product or an addition. Back in float,
it reads the values from before the Q/DQ pairs, and a convolution or product also its float weights
and uncorrected bias. Other readers of a pair still read it. This is done on NNCF's graph, before
`edgekit.graph.legalize` rewrites it, so one decision serves every runtime.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

import onnx

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.typed_toml import closest
from edgekit.graph.view import (
    CONVOLUTIONS,
    PRODUCTS,
    Graph,
    constants,
    copied,
    drop_unused,
    insert_after,
)

_LAYERS = (*PRODUCTS, "Add", "Mul")


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that read 8-bit data, in topological order."""
    graph = Graph(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _LAYERS and any(graph.is_quantized(name) for name in node.input[:2])
    ]


def float_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions and products whose data stayed float."""
    graph = Graph(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and not graph.is_quantized(node.input[0])
    ]


def weight_names(model: onnx.ModelProto) -> dict[str, str]:
    """The names of weights by node name: people know the former, but not ``node_Conv_17``."""
    stored = constants(model)
    return {
        node.name: node.input[1]
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.input[1] in stored
    }


def find_layers(model: onnx.ModelProto, patterns: Collection[str]) -> list[str]:
    """The nodes of a float ``model`` whose name, or whose weight's name, matches a pattern.

    ``*`` stands for any text and ``?`` for any character. A pattern that matches nothing is an
    error: a layer meant to stay float would silently be quantized.
    """
    weights = weight_names(model)
    names = {node.name: weights.get(node.name, "") for node in model.graph.node if node.name}
    nodes: dict[str, None] = {}
    for pattern in patterns:
        matched = [
            name
            for name, weight in names.items()
            if fnmatchcase(name, pattern) or (weight and fnmatchcase(weight, pattern))
        ]
        if not matched:
            known = [*weights.values(), *names]
            raise UsageError(
                f"ignored layer '{pattern}' matches no node of the model; the nearest is "
                f"'{closest(pattern, known, 0.0) or 'none'}'"
            )
        nodes.update(dict.fromkeys(matched))
    return list(nodes)


def with_float(
    model: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]
) -> onnx.ModelProto:
    """A copy of the calibrated ``model`` in which the layers ``names`` are float again.

    ``original`` is the float graph that was calibrated; it has the same node names.
    """
    result = copied(model)
    graph = Graph(result)
    before = {node.name: node for node in original.graph.node}
    stored = constants(original)
    layers = set(names)
    unknown = layers - {node.name for node in result.graph.node}
    if unknown:
        raise EdgekitError(f"the calibrated graph has no node {min(unknown)}")
    added: dict[str, onnx.NodeProto] = {}
    restored: dict[str, onnx.TensorProto] = {}
    for node in result.graph.node:
        if node.name not in layers:
            continue
        for place, name in enumerate(node.input):
            if graph.is_constant(name):
                source = before[node.name].input[place]
                if source not in stored:
                    raise EdgekitError(f"node {node.name}: its constant {source} is not stored")
                restored[source] = stored[source]
                node.input[place] = f"{source}/float"
            elif graph.is_quantized(name):
                node.input[place] = graph.unquantized(name, added)
    for name, tensor in restored.items():
        copy = result.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = f"{name}/float"
    # After the nodes that they copy, where their inputs exist.
    insert_after(result, {name: [node] for name, node in added.items()})
    drop_unused(result)
    return result


def float_fed(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions with 8-bit weights whose data was never rounded to 8 bits.

    OpenVINO sometimes computes these wrongly: with two streams it can lose the weights' scale
    (`tests/quantize/test_openvino_fault.py` has the smallest such graph).
    """
    graph = Graph(model)
    convolutions = []
    for node in model.graph.node:
        if node.op_type not in CONVOLUTIONS or graph.is_quantized(node.input[0]):
            continue
        weights = graph.producer.get(node.input[1])
        if weights is not None and weights.op_type == "DequantizeLinear":
            convolutions.append(node)
    return convolutions
