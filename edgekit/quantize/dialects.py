"""Dialects: what a runtime's INT8 graph may contain, and how a calibrated graph is made to fit.

NNCF's calibration is written down once, as QuantizeLinear/DequantizeLinear pairs (Q/DQ). Where a
runtime wants them otherwise, `legalize` rewrites the pairs; ranges are kept, nothing is
calibrated again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.errors import EdgekitError, UsageError
from edgekit.settings import nearest

if TYPE_CHECKING:  # the table of dialects must not cost the import of onnx
    import onnx


@dataclass(frozen=True)
class Dialect:
    """What calibration and legalization need to know about a runtime."""

    name: str
    # CPUs without VNNI add pairs of u8 x s8 products in 16 bits, which saturate: NNCF then halves
    # the range of the first convolution's weights.
    saturates: bool = False
    # TensorRT: int8 with zero-point 0 only, and no Q/DQ between a convolution and its addition.
    signed_only: bool = False
    fuses_additions: bool = False

    @property
    def rewrites(self) -> bool:
        """Whether a calibrated graph must be changed to be legal."""
        return self.signed_only or self.fuses_additions


DIALECTS: dict[str, Dialect] = {
    "openvino": Dialect("openvino"),
    "openvino-novnni": Dialect("openvino-novnni", saturates=True),
    "onnxruntime": Dialect("onnxruntime"),
    "tensorrt": Dialect("tensorrt", signed_only=True, fuses_additions=True),
}


def find_dialect(name: str) -> Dialect:
    """A dialect by name."""
    if name not in DIALECTS:
        raise UsageError(f"unknown dialect '{name}'{nearest(name, list(DIALECTS))}")
    return DIALECTS[name]


def legalize(model: onnx.ModelProto, dialect: Dialect) -> onnx.ModelProto:
    """A copy of a calibrated ``model`` that ``dialect``'s runtime accepts."""
    import onnx

    legal = onnx.ModelProto()
    legal.CopyFrom(model)
    if dialect.fuses_additions:
        _free_additions(legal)
    if dialect.signed_only:
        _make_signed(legal)
        # Types noted for the unsigned tensors are wrong now; they follow from the zero-points.
        del legal.graph.value_info[:]
    return legal


def _make_signed(model: onnx.ModelProto) -> None:
    """Turn every zero-point into int8 zero.

    An unsigned range [0, 255 s] becomes the signed [-127 t, 127 t] with t = s * 255 / 127, so that
    its largest value stays representable; a ReLU's output loses one of its eight bits.
    """
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    replaced: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
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
    _drop_unused(model)


def _free_additions(model: onnx.ModelProto) -> None:
    """Remove the Q/DQ pair between a convolution and the addition behind it.

    TensorRT fuses convolution, addition and ReLU into one kernel that adds before it rounds to
    8 bits; a pair in between would split it. The other branch keeps its pair: it is the
    kernel's second INT8 input.
    """
    graph = model.graph
    producer = {output: node for node in graph.node for output in node.output}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for addition in graph.node:
        if addition.op_type != "Add":
            continue
        for position, name in enumerate(addition.input):
            source = _quantized_convolution(name, producer, uses)
            if source is not None:
                addition.input[position] = source
                break
    _drop_unused(model)


def _quantized_convolution(
    name: str, producer: dict[str, onnx.NodeProto], uses: dict[str, int]
) -> str | None:
    """The convolution output behind a Q/DQ pair that only this consumer reads."""
    dequantize = producer.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or uses[name] != 1:
        return None
    quantize = producer.get(dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    source: str = quantize.input[0]
    made_by = producer.get(source)
    if made_by is None or made_by.op_type != "Conv" or uses[source] != 1:
        return None
    return source


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that no longer lead to an output."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    for items, remaining in (
        (graph.node, list(reversed(kept))),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
    ):
        del items[:]
        items.extend(remaining)
