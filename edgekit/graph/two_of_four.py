"""Finds layers with 2:4 weights: two zeros at least among every four inputs of each output.

NVIDIA's tensor cores, from Ampere on (Jetson Orin has them), skip these zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.graph.view import PRODUCTS, Graph, attributes

_FOUR = 4


def two_of_four_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of the convolutions and products of ``model`` whose weights are 2:4."""
    graph = Graph(model)
    found = []
    for node in graph.nodes:
        if node.op_type not in PRODUCTS:
            continue
        stored = graph.constants.get(graph.source(node.input[1], ("DequantizeLinear", "Identity")))
        if stored is None or len(stored.dims) < 2:
            continue
        axis = 1
        if node.op_type in ("MatMul", "Gemm") and not attributes(node).get("transB", 0):
            axis = len(stored.dims) - 2
        if attributes(node).get("group", 1) == 1 and is_two_of_four(
            numpy_helper.to_array(stored), axis
        ):
            found.append(node.name)
    return tuple(found)


def is_two_of_four(weights: NDArray[Any], axis: int) -> bool:
    """Whether of every four ``weights`` along ``axis`` at most two are not zero, and some are."""
    if weights.ndim <= axis or weights.shape[axis] % _FOUR:
        return False
    by_input = np.moveaxis(weights, axis, -1)
    counts = np.count_nonzero(by_input.reshape(*by_input.shape[:-1], -1, _FOUR), axis=-1)
    return bool(counts.size) and 0 < int(counts.max()) <= _FOUR // 2
