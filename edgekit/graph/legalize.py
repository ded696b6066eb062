"""Adapts a calibrated graph to a dialect (`edgekit.targets.dialects`).

NNCF's calibration is stored once, as QuantizeLinear/DequantizeLinear pairs (Q/DQ). Where a runtime
needs them differently, `legalize` rewrites the pairs; the ranges stay, and nothing is calibrated
again.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.core.errors import EdgekitError
from edgekit.graph.view import (
    PAIR,
    Graph,
    constants,
    copied,
    drop_unused,
    insert_after,
    replace_input,
)
from edgekit.targets.dialects import Dialect


def legalize(model: onnx.ModelProto, dialect: Dialect) -> onnx.ModelProto:
    """A copy of a calibrated ``model`` that ``dialect``'s runtime accepts."""
    legal = copied(model)
    if dialect.fuses_additions:
        _free_additions(legal)
    if dialect.scalar_activations:
        _make_scalar(legal)
    if dialect.pools_in_int8:
        _quantize_pools(legal)
    if dialect.signed_only:
        _make_signed(legal)
        # The types recorded for unsigned tensors are now wrong; zero-points imply the right ones.
        del legal.graph.value_info[:]
    return legal


def _make_scalar(model: onnx.ModelProto) -> None:
    """Give every activation a single scale: its channels' largest, which covers all of them."""
    graph, tensors = model.graph, constants(model)
    replaced: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type not in PAIR or node.input[0] in tensors:
            continue
        names = (node.input[1], node.input[2])
        if not set(names) <= set(tensors):
            raise EdgekitError(f"node {node.name}: its scale is not a stored constant")
        scale, zero = (numpy_helper.to_array(tensors[name]) for name in names)
        if scale.size == 1:
            continue
        if zero.any():
            raise EdgekitError(
                f"node {node.name}: zero-points by channel, and TensorRT takes only 0: "
                "calibrate with preset = 'performance'"
            )
        if names not in replaced:
            replaced[names] = (f"{names[0]}_scalar", f"{names[1]}_scalar_{len(replaced)}")
            for name, value in zip(replaced[names], (scale.max(), zero.flat[0]), strict=True):
                graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        node.input[1], node.input[2] = replaced[names]
        for attribute in [item for item in node.attribute if item.name == "axis"]:
            node.attribute.remove(attribute)
    drop_unused(model)


def _quantize_pools(model: onnx.ModelProto) -> None:
    """Repeat the Q/DQ pair of a max pooling's input after it.

    The maximum of 8-bit values is one of them, so nothing is rounded twice; and what reads the
    pooled values (a convolution, an addition) then reads 8-bit values.
    """
    graph = Graph(model)
    added: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        before = graph.producer.get(node.input[0]) if node.input else None
        if node.op_type != "MaxPool" or before is None or before.op_type != "DequantizeLinear":
            continue
        pooled = node.output[0]
        readers = graph.readers.get(pooled, [])
        if pooled in graph.outputs or all(r.op_type == "QuantizeLinear" for r in readers):
            continue
        names = [pooled, f"{pooled}_quantized", f"{pooled}_dequantized"]
        added[pooled] = [
            helper.make_node(kind, [source, *before.input[1:]], [result], name=f"{kind}_{pooled}")
            for kind, source, result in zip(PAIR, names, names[1:], strict=False)
        ]
        replace_input(readers, pooled, names[-1])
    insert_after(model, added)


def _make_signed(model: onnx.ModelProto) -> None:
    """Turn every zero-point into int8 zero.

    An unsigned range [0, 255 s] becomes the signed [-127 t, 127 t] with t = s * 255 / 127, in which
    its largest value stays representable; a ReLU's output loses one of its eight bits.
    """
    graph, tensors = model.graph, constants(model)
    replaced: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type not in PAIR:
            continue
        if len(node.input) < 3 or node.input[2] not in tensors:
            raise EdgekitError(f"node {node.name}: its zero-point is not a stored constant")
        scale_name, zero_name = node.input[1], node.input[2]
        zero = numpy_helper.to_array(tensors[zero_name])
        if zero.any():
            raise EdgekitError(
                f"node {node.name}: zero-point {zero.ravel()[0]}, and TensorRT takes only 0: "
                "calibrate with preset = 'performance'"
            )
        if zero.dtype == np.int8:
            continue
        if zero.dtype != np.uint8:
            raise EdgekitError(f"node {node.name}: {zero.dtype} is not an 8-bit type")
        if (scale_name, zero_name) not in replaced:
            scale = numpy_helper.to_array(tensors[scale_name])
            signed = (scale * np.float32(255 / 127)).astype(scale.dtype)
            names = (f"{scale_name}_signed", f"{zero_name}_signed_{len(replaced)}")
            graph.initializer.append(numpy_helper.from_array(signed, names[0]))
            graph.initializer.append(
                numpy_helper.from_array(np.zeros_like(zero, np.int8), names[1])
            )
            replaced[scale_name, zero_name] = names
        node.input[1], node.input[2] = replaced[scale_name, zero_name]
    drop_unused(model)


def _free_additions(model: onnx.ModelProto) -> None:
    """Remove the Q/DQ pair between a convolution and the addition that follows it.

    TensorRT fuses convolution, addition and ReLU into one kernel that adds before it rounds to
    8 bits; a pair in between would split it. The other branch keeps its pair: it is the
    kernel's second INT8 input.
    """
    graph = Graph(model)
    for addition in graph.nodes:
        if addition.op_type != "Add":
            continue
        for position, name in enumerate(addition.input):
            source = _quantized_convolution(name, graph)
            if source is not None:
                addition.input[position] = source
                break
    drop_unused(model)


def _quantized_convolution(name: str, graph: Graph) -> str | None:
    """The convolution's output before a Q/DQ pair that only one consumer reads."""
    dequantize = graph.producer.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = graph.quantizer(dequantize)
    if quantize is None:
        return None
    source: str = quantize.input[0]
    convolution = graph.producer.get(source)
    if convolution is None or convolution.op_type != "Conv":
        return None
    return source if len(graph.readers[name]) == len(graph.readers[source]) == 1 else None
