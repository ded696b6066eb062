"""Lints any ONNX file against a dialect: which node a runtime would refuse or run slowly, and why.

Each finding names the node, the rule and the fix. Some rules are stricter than a runtime's own
parser, which accepts what its builder then rejects or silently runs in float.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgekit.core.errors import UsageError
from edgekit.graph.findings import Finding, Severity
from edgekit.graph.layers import float_fed
from edgekit.graph.lookup import is_lookup
from edgekit.graph.tensorrt_operators import OPSETS, UNKNOWN_TO_TENSORRT
from edgekit.graph.view import PAIR, PRODUCTS, SHAPES, Graph, attributes
from edgekit.targets.dialects import Dialect
from edgekit.targets.operators import DOMAIN, LOOKUP_NODE


def check_file(path: Path, dialect: Dialect) -> list[Finding]:
    """`check_model` of an ONNX file."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        reason = getattr(error, "strerror", None) or "not an ONNX file"
        raise UsageError(f"cannot read {path}: {reason}") from error
    if not model.graph.node:
        raise UsageError(f"cannot read {path}: it holds no ONNX graph")
    return check_model(model, dialect)


def check_model(model: onnx.ModelProto, dialect: Dialect) -> list[Finding]:
    """Everything in ``model`` that does not fit ``dialect``: errors first, in the graph's order."""
    graph = _LintGraph(model)
    findings = [*_check_pairs(graph), *_check_head(graph)]
    if dialect.scalar_activations:
        findings += _check_scales_by_channel(graph, dialect.name)
    if dialect.signed_only:
        findings += [
            *_check_signed(graph),
            *_check_additions(graph),
            *_check_operators(graph),
            *_check_lookup(graph),
        ]
    if dialect.saturates:
        findings += _check_saturation(graph)
    if dialect.drops_scales:
        findings += _check_float_input(model)
    return sorted(findings, key=lambda finding: finding.severity != "error")


class _LintGraph(Graph):
    """A graph, with the queries that the rules need."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.model = model
        for node in self.nodes:  # the way other programs store tensors
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def pairs(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """The Q and DQ nodes, or those of one kind."""
        operators = kinds or PAIR
        return (node for node in self.nodes if node.op_type in operators)

    def value(self, node: onnx.NodeProto, position: int) -> NDArray[Any] | None:
        """A stored input of a node."""
        if len(node.input) <= position or node.input[position] not in self.constants:
            return None
        array: NDArray[Any] = numpy_helper.to_array(self.constants[node.input[position]])
        return array

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a Q or DQ reads a stored tensor, directly or through another Q."""
        return self.source(node.input[0], ("QuantizeLinear",)) in self.constants

    def dequantized(self, name: str) -> onnx.NodeProto | None:
        """The DQ that a value comes from, through nodes that only change shapes."""
        node = self.producer.get(self.source(name, SHAPES))
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def lookups(self) -> list[onnx.NodeProto]:
        """The CodebookLookup nodes."""
        return list(filter(is_lookup, self.nodes))


def _finding(
    severity: Severity, rule: str, node: onnx.NodeProto, message: str, fix: str
) -> Finding:
    name = node.name or (node.output[0] if node.output else "?")
    return Finding(severity, rule, name, node.op_type, message, fix)


def _check_pairs(graph: _LintGraph) -> Iterator[Finding]:
    """What every runtime requires of a Q/DQ pair."""
    for node in graph.pairs():
        scale = graph.value(node, 1)
        if scale is None:
            yield _finding(
                "error", "constant-scale", node, "its scale is not a stored constant",
                "quantize statically: 'edgekit calibrate'",
            )  # fmt: skip
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            worst = scale.ravel()[~(np.isfinite(scale.ravel()) & (scale.ravel() > 0))][0]
            yield _finding(
                "error", "positive-scale", node, f"its scale is {worst:g}",
                "calibrate again; a channel that is always zero needs any small positive scale",
            )  # fmt: skip
    for node in graph.pairs("QuantizeLinear"):
        readers = graph.readers.get(node.output[0], [])
        others = [reader for reader in readers if reader.op_type != "DequantizeLinear"]
        if others:
            yield _finding(
                "error", "paired", node,
                f"its output goes to {others[0].op_type} without a DequantizeLinear",
                "use the QDQ form of quantization, not operators on integers",
            )  # fmt: skip


def _check_signed(graph: _LintGraph) -> Iterator[Finding]:
    """TensorRT: int8, zero-point 0, and no quantized bias."""
    advice = "calibrate for it: 'edgekit calibrate --dialect tensorrt'"
    for node in graph.pairs():
        kind = _integer_type(graph, node)
        zero = graph.value(node, 2)
        if node.op_type == "DequantizeLinear" and kind == TensorProto.INT32:
            yield _finding(
                "error", "float-bias", node, "it dequantizes an int32 bias",
                "store the bias as float32 and remove this node",
            )  # fmt: skip
        elif zero is not None and zero.any():
            worst = zero.ravel()[zero.ravel() != 0][0]
            yield _finding(
                "error", "zero-point", node, f"its zero-point is {worst}, TensorRT takes only 0",
                "calibrate symmetrically: preset = 'performance' in the recipe",
            )  # fmt: skip
        elif kind == TensorProto.UINT8:
            implied = "" if zero is not None else " (the default without a zero-point)"
            yield _finding(
                "error", "signed", node, f"it is uint8{implied}, TensorRT's 8-bit type is int8",
                f"{advice}, or scale x 255/127 and an int8 zero-point",
            )  # fmt: skip
        elif kind not in (TensorProto.INT8, None):
            name = TensorProto.DataType.Name(kind).lower()
            yield _finding("error", "signed", node, f"it is {name}, not int8", "calibrate to int8")


def _integer_type(graph: _LintGraph, node: onnx.NodeProto) -> int | None:
    """The integer type of a Q's result or a DQ's input; None when the file does not say."""
    if len(node.input) > 2 and node.input[2] in graph.constants:
        return int(graph.constants[node.input[2]].data_type)
    if node.op_type == "QuantizeLinear":
        return int(attributes(node).get("output_dtype") or TensorProto.UINT8)
    if node.input[0] in graph.constants:
        return int(graph.constants[node.input[0]].data_type)
    return None  # the Q before it determines the type


def _check_scales_by_channel(graph: _LintGraph, dialect: str) -> Iterator[Finding]:
    """One scale per activation; weights by output channel. TensorRT-RTX's parser accepts others."""
    for node in graph.pairs():
        scale = graph.value(node, 1)
        if scale is None or scale.size <= 1:
            continue
        if not graph.is_weight(node):
            yield _finding(
                "error", "activation-scale", node,
                f"an activation has {scale.size} scales, {dialect} takes one",
                f"calibrate for it ('edgekit calibrate --dialect {dialect}'), or use the largest",
            )  # fmt: skip
            continue
        if node.op_type != "DequantizeLinear":
            continue
        axis = attributes(node).get("axis", 1)
        for reader in graph.readers.get(node.output[0], []):
            output_axis = _output_channel_axis(reader, node.output[0])
            rank = (
                len(graph.constants[node.input[0]].dims) if node.input[0] in graph.constants else 0
            )
            if output_axis is not None and rank and axis % rank != output_axis % rank:
                yield _finding(
                    "error", "weight-axis", node,
                    f"scales along axis {axis} of the weights of {reader.name}, whose output "
                    f"channels are axis {output_axis % rank}",
                    "quantize weights by output channel",
                )  # fmt: skip


def _output_channel_axis(reader: onnx.NodeProto, name: str) -> int | None:
    if len(reader.input) < 2 or reader.input[1] != name:
        return None
    if reader.op_type == "Gemm":
        return 0 if attributes(reader).get("transB") else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(reader.op_type)


def _check_additions(graph: _LintGraph) -> Iterator[Finding]:
    """TensorRT fuses Conv -> Add -> ReLU if one side of the addition is a bare convolution."""
    for node in graph.nodes:
        if node.op_type != "Add":
            continue
        sources = [graph.producer.get(name) for name in node.input]
        if any(source is not None and source.op_type == "Conv" for source in sources):
            continue
        for source in sources:
            before = None if source is None else _pair_after_convolution(graph, source)
            if before is not None:
                yield _finding(
                    "warning", "fused-addition", node,
                    f"a Q/DQ pair lies between convolution {before.name or before.output[0]} and "
                    "this addition, which keeps TensorRT from fusing them",
                    "calibrate for it: 'edgekit calibrate --dialect tensorrt'",
                )  # fmt: skip
                break


def _pair_after_convolution(graph: _LintGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The convolution before a Q/DQ pair that a single node reads."""
    if node.op_type != "DequantizeLinear" or len(graph.readers.get(node.output[0], [])) != 1:
        return None
    quantize = graph.quantizer(node)
    if quantize is None:
        return None
    source = graph.producer.get(quantize.input[0])
    if source is None or source.op_type != "Conv" or len(graph.readers[source.output[0]]) != 1:
        return None
    return source


def _check_operators(graph: _LintGraph) -> Iterator[Finding]:
    """TensorRT: operators and opset."""
    functions = {(function.domain, function.name) for function in graph.model.functions}
    for opset in graph.model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS:
            yield Finding(
                "error", "opset", graph.model.graph.name or "graph", "model",
                f"opset {opset.version} is outside {OPSETS[0]} to {OPSETS[-1]}",
                "export again with '--opset 18'",
            )  # fmt: skip
    for node in graph.nodes:
        if node.domain in ("", "ai.onnx"):
            if node.op_type in UNKNOWN_TO_TENSORRT:
                yield _finding(
                    "error", "operator", node, "TensorRT's parser does not know this operator",
                    "replace it in the model; integer operators: export in the QDQ form",
                )  # fmt: skip
        elif (node.domain, node.op_type) not in functions and node.domain != DOMAIN:
            yield _finding(
                "error", "operator", node,
                f"operator {node.domain}::{node.op_type} is neither standard nor a function of "
                "this file",
                "load a plugin of this name, or inline its function before the export",
            )  # fmt: skip


def _check_lookup(graph: _LintGraph) -> Iterator[Finding]:
    """TensorRT: what the parser needs to find our plugin, and the type of its indices."""
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.model.graph.value_info, *graph.model.graph.output)
    }
    for node in graph.lookups():
        given = attributes(node)
        missing = [name for name in ("plugin_namespace", "plugin_version") if name not in given]
        if missing:
            yield _finding(
                "warning", "plugin-attributes", node,
                f"attribute {missing[0]} is missing: some TensorRT releases do not find the plugin",
                "export again: 'edgekit export' writes plugin_namespace and plugin_version",
            )  # fmt: skip
        declared = types.get(node.output[0], TensorProto.UNDEFINED)
        if declared not in (TensorProto.UNDEFINED, TensorProto.INT64):
            name = TensorProto.DataType.Name(declared).lower()
            yield _finding(
                "error", "int64-indices", node,
                f"its indices are declared {name}, but the plugin returns int64",
                "declare them int64 and cast after the node where int32 is needed",
            )  # fmt: skip


def _check_head(graph: _LintGraph) -> Iterator[Finding]:
    """The lookup and everything computed from it stay float, except products with weights."""
    starts = [node.input[0] for node in graph.lookups()]
    scores = [node for node in graph.nodes if node.name == f"{LOOKUP_NODE}/scores"]
    starts += [node.input[0] for node in scores]
    advice = "keep the head in float: 'edgekit calibrate' does"
    for node in graph.lookups() or scores:
        for name, role in zip(node.input, ("features", "codebook"), strict=False):
            if graph.dequantized(name) is not None:
                yield _finding(
                    "error", "float-lookup", node,
                    f"its {role} are rounded to 8 bits, which changes the codes", advice,
                )  # fmt: skip
    for node in graph.depending_on(starts):
        if node.op_type in PAIR or is_lookup(node):
            continue
        if node.op_type in PRODUCTS and _has_weights(graph, node):
            continue
        rounded = [graph.dequantized(name) for name in node.input]
        if any(rounded) and not (node.name or "").startswith(f"{LOOKUP_NODE}/"):
            kind = "table" if node.op_type == "Gather" else "operand"
            yield _finding(
                "error", "float-head", node,
                f"a {kind} of the VQ-SA head is rounded to 8 bits", advice,
            )  # fmt: skip


def _has_weights(graph: _LintGraph, node: onnx.NodeProto) -> bool:
    name = node.input[1]
    while name in graph.producer:
        name = graph.producer[name].input[0]
    return name in graph.constants


def _check_float_input(model: onnx.ModelProto) -> Iterator[Finding]:
    """OpenVINO: 8-bit weights need 8-bit input."""
    for node in float_fed(model):
        yield _finding(
            "error", "float-input", node,
            "its weights are int8 and its input is float; OpenVINO may lose the weights' scale",
            "quantize its input, or keep its weights in float",
        )  # fmt: skip


def _check_saturation(graph: _LintGraph) -> Iterator[Finding]:
    """Without VNNI, two u8 x s8 products are added in 16 bits: weights may use half the range."""
    wide = []
    for node in graph.pairs("DequantizeLinear"):
        weights = graph.value(node, 0)
        readers = graph.readers.get(node.output[0], [])
        if weights is None or not any(reader.op_type in PRODUCTS for reader in readers):
            continue
        if weights.dtype == np.int8 and np.abs(weights.astype(np.int16)).max(initial=0) > 64:
            wide.append(node)
    if wide:
        yield _finding(
            "warning", "saturation", wide[0],
            f"int8 weights of {len(wide)} layer(s), this first, use more than half their range; "
            "pairs of products can overflow",
            "calibrate for this dialect: 'edgekit calibrate --dialect openvino-novnni'",
        )  # fmt: skip
