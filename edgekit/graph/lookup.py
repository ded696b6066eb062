"""The operator edgekit::CodebookLookup in ONNX: its attributes and its body of standard operators.

    indices, margin = edgekit::CodebookLookup(features [M, D], codebook [N, D])

``indices`` [M] int64 is the row of the codebook with the largest score, ties to the lowest:
<x, e> with metric "dot" (rows of unit length: the cosine distance), <x, e> - <e, e> / 2 with "l2".
``margin`` [M], best minus second-best score, exists only with the attribute ``margin = 1``;
it is infinite for a codebook of one row.

The body is a model-local function, so a runtime that knows nothing of edgekit expands it and runs
it in its own float32; our kernels replace the whole node and return the exact index. TensorRT finds
its plugin by the attributes ``plugin_namespace`` and ``plugin_version``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.targets.operators import DOMAIN, LOOKUP, LOOKUP_VERSION

Metric = Literal["dot", "l2"]

OPERATOR_VERSION = 1  # of the domain "edgekit" in a model's opset imports
ATTRIBUTES = ("plugin_namespace", "plugin_version", "metric", "margin")


@dataclass(frozen=True)
class LookupSpec:
    """What one CodebookLookup node computes."""

    metric: Metric
    margin: bool
    rows: int  # N

    def attributes(self) -> dict[str, str | int]:
        """The attributes of the node."""
        return {
            "plugin_namespace": DOMAIN,
            "plugin_version": LOOKUP_VERSION,
            "metric": self.metric,
            "margin": int(self.margin),
        }


def is_lookup(node: onnx.NodeProto) -> bool:
    """Whether a node is our operator."""
    return (node.domain, node.op_type) == (DOMAIN, LOOKUP)


def lookup_function(spec: LookupSpec, opset: int) -> onnx.FunctionProto:
    """The body for this lookup, in the standard operators of ``opset``."""
    runner_up = spec.margin and spec.rows > 1
    nodes = [
        *_scores(spec.metric),
        # ONNX orders TopK's equal values by index. No runtime we know is slower at TopK than at
        # ArgMax, and OpenVINO is faster.
        _constant("count", np.array([2 if runner_up else 1], np.int64)),
        helper.make_node(
            "TopK", ["scores", "count"], ["top_scores", "top_rows"], name="top", axis=-1
        ),
        _constant("first", np.array(0, np.int64)),
        helper.make_node("Gather", ["top_rows", "first"], ["indices"], name="indices", axis=1),
    ]
    if spec.margin:
        nodes += _margin_to_second() if runner_up else _infinite_margin()
    return helper.make_function(
        domain=DOMAIN,
        fname=LOOKUP,
        inputs=["features", "codebook"],
        outputs=["indices", "margin"] if spec.margin else ["indices"],
        nodes=nodes,
        opset_imports=[helper.make_opsetid("", opset)],
        attributes=list(ATTRIBUTES),
    )


def _scores(metric: Metric) -> list[onnx.NodeProto]:
    if metric == "dot":
        return [
            helper.make_node("Gemm", ["features", "codebook"], ["scores"], name="scores", transB=1)
        ]
    return [
        _constant("row", np.array([1], np.int64)),
        helper.make_node(
            "ReduceSumSquare", ["codebook", "row"], ["squares"], name="squares", keepdims=0
        ),
        _constant("minus_half", np.array(-0.5, np.float32)),
        helper.make_node("Mul", ["squares", "minus_half"], ["offsets"], name="offsets"),
        helper.make_node(
            "Gemm", ["features", "codebook", "offsets"], ["scores"], name="scores", transB=1
        ),
    ]


def _margin_to_second() -> list[onnx.NodeProto]:
    return [
        _constant("second", np.array(1, np.int64)),
        helper.make_node("Gather", ["top_scores", "first"], ["best"], name="best", axis=1),
        helper.make_node("Gather", ["top_scores", "second"], ["next"], name="next", axis=1),
        helper.make_node("Sub", ["best", "next"], ["margin"], name="margin"),
    ]


def _infinite_margin() -> list[onnx.NodeProto]:
    infinity = numpy_helper.from_array(np.array([np.inf], np.float32))
    return [
        helper.make_node("Shape", ["indices"], ["shape"], name="shape"),
        helper.make_node("ConstantOfShape", ["shape"], ["margin"], name="margin", value=infinity),
    ]


def _constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node(
        "Constant", [], [name], name=name, value=numpy_helper.from_array(value, name)
    )
