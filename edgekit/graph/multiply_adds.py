"""How many multiply-adds a graph takes for one image: a price that no machine's load changes."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import helper, shape_inference

from edgekit.graph.lookup import is_lookup
from edgekit.graph.view import CONVOLUTIONS, MATRIX_PRODUCTS, attributes

_SMALL = 4096  # values; shapes and indices, whose values tell other shapes, are below

Sizes = dict[str, list[int]]


def multiply_adds(path: Path) -> int:
    """Of the convolutions, matrix products and lookups in the float graph ``path``, for one image.

    A size that cannot be told counts as 1.
    """
    model = onnx.load(path, load_external_data=False)
    sizes = _sizes(model)
    return sum(_of_node(node, sizes) for node in model.graph.node)


def _of_node(node: onnx.NodeProto, sizes: Sizes) -> int:
    inputs = [sizes.get(name, []) for name in node.input]
    result = sizes.get(node.output[0], [])
    if node.op_type in CONVOLUTIONS:  # each weight is used once at every place of this side
        places = inputs[0] if node.op_type == "ConvTranspose" else result
        return math.prod(inputs[1]) * math.prod(places[2:])
    if node.op_type in MATRIX_PRODUCTS:
        turned = node.op_type == "Gemm" and attributes(node).get("transA", 0)
        common = inputs[0][0 if turned else -1 :][:1]
        return math.prod(result) * math.prod(common)
    if is_lookup(node):
        return math.prod(inputs[0]) * math.prod(inputs[1][:1])
    return 0


def _sizes(model: onnx.ModelProto) -> Sizes:
    """The dimensions of every value for one image; what is unknown is 1. Takes the weights out."""
    graph = model.graph
    stored = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    # What the exporter says of other values holds for any batch, and would be believed.
    del graph.value_info[:]
    del graph.input[:]
    graph.input.extend(inputs)
    # Inference copies the model several times: large weights take part without their values.
    small = []
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > _SMALL:
            kind = tensor.data_type
            graph.input.append(helper.make_tensor_value_info(tensor.name, kind, tensor.dims))
        else:
            small.append(tensor)
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in small]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {
        value.name: [max(1, size.dim_value) for size in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    return sizes | stored
