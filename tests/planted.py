"""Faults planted into an ONNX graph: what may go wrong between a graph and what runs it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.graph.variants import lookup_node

Edit = Callable[[NDArray[Any]], NDArray[Any]]


def edited(model: onnx.ModelProto, names: Sequence[str], edit: Edit) -> onnx.ModelProto:
    """A copy of ``model`` with some of its stored tensors changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            array = np.ascontiguousarray(edit(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def exchanged(a: int, b: int, axis: int = 0) -> Edit:
    """Rows ``a`` and ``b`` in each other's place."""

    def edit(array: NDArray[Any]) -> NDArray[Any]:
        order = np.arange(array.shape[axis])
        order[[a, b]] = b, a
        return np.take(array, order, axis=axis)

    return edit


def weight_scales(model: onnx.ModelProto) -> list[str]:
    """The scales of int8 weights, from the first layer to the last."""
    weights = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) >= 2
    }
    return [
        node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    ]


def codewords_exchanged(model: onnx.ModelProto, a: int, b: int) -> onnx.ModelProto:
    """Two rows of the codebook in each other's place."""
    return edited(model, [_codebook(model)], exchanged(a, b))


def classes_exchanged(model: onnx.ModelProto, a: int, b: int, classes: int) -> onnx.ModelProto:
    """Two classes in each other's place, wherever a tensor behind the codebook has all of them."""
    codebook = _codebook(model)
    for axis, rank in ((0, 1), (0, 2), (1, 2)):
        names = [
            tensor.name
            for tensor in model.graph.initializer
            if len(tensor.dims) == rank and tensor.dims[axis] == classes
        ]
        names = [name for name in names if name != codebook]
        model = edited(model, names, exchanged(a, b, axis))
    return model


def _codebook(model: onnx.ModelProto) -> str:
    node = lookup_node(model)
    assert node is not None
    return str(node.input[1])
