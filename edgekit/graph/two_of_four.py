"""Finds layers with 2:4 weights: two zeros at least among every four inputs of each output.

NVIDIA's sparse tensor cores, from Ampere on (Jetson Orin has them), can skip these zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.graph.view import Graph, attributes

_FOUR = 4


def two_of_four_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of the convolutions and products of ``model`` whose weights are 2:4."""
    graph = Graph(model)
    found = []
    for node in graph.nodes:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or attributes(node).get("group", 1) != 1:
            continue
        name = node.input[1]
        along_inputs = node.op_type == "Conv" or attributes(node).get("transB", 0)
        axis = 1 if along_inputs else -2
        # Exporters and quantizers may pass weights on under another name, or transposed.
        while (before := graph.producer.get(name)) is not None and before.op_type in (
            "DequantizeLinear",
            "Identity",
            "Transpose",
        ):
            if before.op_type == "Transpose":
                order = attributes(before).get("perm")
                axis = -1 - axis if order is None else order[axis]
            name = before.input[0]
        stored = graph.constants.get(name)
        if stored is not None and is_two_of_four(numpy_helper.to_array(stored), axis):
            found.append(node.name)
    return tuple(found)


def is_two_of_four(weights: NDArray[Any], axis: int) -> bool:
    """Whether of every four ``weights`` along ``axis`` at most two are not zero, and some are."""
    if weights.ndim < 2 or weights.shape[axis] % _FOUR:
        return False
    by_input = np.moveaxis(weights, axis, -1)
    counts = np.count_nonzero(by_input.reshape(*by_input.shape[:-1], -1, _FOUR), axis=-1)
    return bool(counts.size) and 0 < int(counts.max()) <= _FOUR // 2
