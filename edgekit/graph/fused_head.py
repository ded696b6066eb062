"""Replaces a calibrated, folded head by a single node, edgekit::VQSAHead, for OpenVINO.

    logits, code[, margin] = edgekit::VQSAHead(features [B, D], codebook [N, D], norm [N, 1],
        table [N, 4D] int8, table_steps [N, 2], projection [3D, D] int8, projection_steps [3D],
        classifier [C, D] int8, classifier_steps [C], classifier_bias [C])

The node computes the same as the nodes that it replaces, in the same 8-bit integers; it skips the
zero triangle of the projection and reads each weight once. The code tables become 16-bit integers
with a step per row (separate for key and base), which halves their size and is off by at most
1/65534 of the row's largest value. They are stored as two bytes each, little-endian, in one int8
tensor, because OpenVINO's CPU device widens 16-bit constants to 32 bits.

Only a graph that is exactly what `edgekit.model.fold` and NNCF's calibration make of a pooled head
with tables has such a head. Any other (a float graph, a spatial or unfolded head, another
program's file) stays as it is and runs all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.graph.variants import lookup_node
from edgekit.graph.view import Graph, attributes, copied, drop_unused, set_nodes
from edgekit.targets.operators import DOMAIN, HEAD

HEAD_NODE = "vqsa_head"
_HEAD_VERSION = "1"  # checked by the extension's operator
_LARGEST = 32767  # of a 16-bit code; -32768 is not used


@dataclass(frozen=True)
class _Quantized:
    """A value that a Q/DQ pair rounds to 8 bits."""

    source: str
    step: float
    zero: int
    signed: bool


@dataclass(frozen=True)
class _Weights:
    """A constant matrix [rows, columns] of 8-bit integers, with one step per row."""

    codes: NDArray[np.int8]
    steps: NDArray[np.float32]


class _NoMatch(Exception):
    """The graph does not contain the head that the node can replace."""


class _HeadGraph(Graph):
    """A graph, with queries that raise `_NoMatch` where it is not as expected."""

    def node(self, value: str, operator: str) -> onnx.NodeProto:
        """The node that computes ``value``, which must be an ``operator``."""
        node = self.producer.get(value)
        if node is None or node.op_type != operator or node.domain not in ("", DOMAIN):
            raise _NoMatch
        return node

    def inputs(self, value: str, operator: str) -> list[str]:
        """The inputs of the node that computes ``value``, which must be an ``operator``."""
        return list(self.node(value, operator).input)

    def constant(self, name: str) -> NDArray[np.generic]:
        """A stored tensor."""
        if name not in self.constants:
            raise _NoMatch
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def floats(self, name: str) -> NDArray[np.float32]:
        """A stored tensor of floats."""
        values = self.constant(name)
        _expect(values.dtype == np.float32)
        return values.astype(np.float32)

    def quantized(self, value: str) -> _Quantized:
        """The value that a Q/DQ pair with a single step rounds to ``value``."""
        codes, step, zero = self.inputs(value, "DequantizeLinear")
        source, *same = self.inputs(codes, "QuantizeLinear")
        _expect(same == [step, zero])
        steps, zeros = self.floats(step), self.constant(zero)
        _expect(steps.size == 1 and zeros.dtype in (np.int8, np.uint8))
        return _Quantized(source, float(steps), int(zeros), zeros.dtype == np.int8)

    def weights(self, value: str) -> _Weights:
        """An 8-bit matrix with symmetric steps, one per row or one for all."""
        codes, step, zero = self.inputs(value, "DequantizeLinear")
        levels, steps = self.constant(codes), self.floats(step)
        _expect(levels.dtype == np.int8 and levels.ndim == 2 and not self.constant(zero).any())
        _expect(steps.size in (1, len(levels)))
        return _Weights(
            levels.astype(np.int8), np.array(np.broadcast_to(steps.ravel(), len(levels)))
        )

    def linear(self, value: str) -> tuple[str, str, str | None]:
        """The input, weights and bias of x W^T + b."""
        node = self.node(value, "Gemm")
        options = attributes(node)
        _expect(options.get("transB", 0) == 1 and options.get("transA", 0) == 0)
        _expect(options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0)
        return node.input[0], node.input[1], node.input[2] if len(node.input) > 2 else None


def _expect(condition: object) -> None:
    if not condition:
        raise _NoMatch


def fuse_head(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy of the model with its head as one node; None if it has no such head."""
    lookup = lookup_node(model)
    if lookup is None:
        return None
    try:
        head, constants = _match(model, lookup)
    except _NoMatch:
        return None
    fused = copied(model)
    outputs = set(head.output)
    set_nodes(
        fused.graph, [*(node for node in fused.graph.node if not outputs & set(node.output)), head]
    )
    fused.graph.initializer.extend(constants)
    drop_unused(fused)
    del fused.graph.value_info[:]
    del fused.functions[:]
    return fused


def _match(
    model: onnx.ModelProto, lookup: onnx.NodeProto
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    graph = _HeadGraph(model)
    features, codebook = lookup.input
    code = lookup.output[0]
    _expect({"logits", code} <= graph.outputs)

    fused_value, classifier_value, bias = graph.linear("logits")
    _expect(bias is not None)
    fused = graph.quantized(fused_value)
    residual = graph.producer[fused.source].op_type == "Add"
    if residual:
        skipped, combined = graph.inputs(fused.source, "Add")
        _expect(skipped == features)
    else:
        (combined,) = graph.inputs(fused.source, "Relu")
    # combined = (base + sigmoid(first) P1 r) + sigmoid(first + second) P2 r
    left, right = graph.inputs(combined, "Add")
    base, left = graph.inputs(left, "Add")
    (gate1, p1r), (gate2, p2r) = graph.inputs(left, "Mul"), graph.inputs(right, "Mul")
    (first,), (both,) = graph.inputs(gate1, "Sigmoid"), graph.inputs(gate2, "Sigmoid")
    same_first, second = graph.inputs(both, "Add")
    _expect(same_first == first)
    rest, key = graph.inputs(graph.inputs(first, "ReduceSum")[0], "Mul")
    same_rest, ur = graph.inputs(graph.inputs(second, "ReduceSum")[0], "Mul")
    _expect(same_rest == rest)

    split = graph.node(key, "Split")
    _expect(list(split.output) == [key, base])
    table_name, *index = graph.inputs(split.input[0], "Gather")
    _expect(index == [code])
    split = graph.node(ur, "Split")
    _expect(list(split.output) == [ur, p1r, p2r])
    rest_value, projection_value, no_bias = graph.linear(split.input[0])
    quantized_rest = graph.quantized(rest_value)
    _expect(no_bias is None and quantized_rest.source == rest)
    same_features, codeword = graph.inputs(rest, "Sub")
    row, length = graph.inputs(codeword, "Mul")
    _expect(same_features == features and graph.inputs(row, "Gather") == [codebook, code])
    norm_name, *index = graph.inputs(length, "Gather")
    _expect(index == [code])

    projection, classifier = graph.weights(projection_value), graph.weights(classifier_value)
    table, steps = _sixteen_bits(graph.floats(table_name))
    rows, width = graph.floats(codebook).shape
    _expect(projection.codes.shape == (3 * width, width) and classifier.codes.shape[1] == width)
    _expect(table.shape == (rows, 4 * width) and graph.floats(norm_name).shape == (rows, 1))
    constants = [
        numpy_helper.from_array(array, f"{HEAD_NODE}/{name}")
        for name, array in (
            ("table", table),
            ("table_steps", steps),
            ("projection", projection.codes),
            ("projection_steps", projection.steps),
            ("classifier", classifier.codes),
            ("classifier_steps", classifier.steps),
            ("classifier_bias", graph.floats(str(bias)).ravel()),
        )
    ]
    head = helper.make_node(
        HEAD,
        [features, codebook, norm_name, *(tensor.name for tensor in constants)],
        ["logits", *lookup.output],
        name=HEAD_NODE,
        domain=DOMAIN,
        plugin_version=_HEAD_VERSION,
        metric=attributes(lookup)["metric"],
        margin=int(len(lookup.output) > 1),
        residual=int(residual),
        rest_step=quantized_rest.step,
        rest_zero=quantized_rest.zero,
        rest_signed=int(quantized_rest.signed),
        fused_step=fused.step,
        fused_zero=fused.zero,
        fused_signed=int(fused.signed),
    )
    return head, constants


def _sixteen_bits(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Each row's two halves as 16-bit integers, viewed as bytes, and their steps."""
    halves = table.reshape(len(table), 2, -1)
    peak = np.abs(halves).max(axis=2, keepdims=True)
    steps = np.where(peak > 0, peak / np.float32(_LARGEST), np.float32(1)).astype(np.float32)
    _expect(np.isfinite(steps).all() and (steps > 0).all())
    codes = np.clip(np.rint(halves / steps), -_LARGEST, _LARGEST).astype("<i2")
    return codes.view(np.int8).reshape(len(table), -1), steps.reshape(len(table), 2)
