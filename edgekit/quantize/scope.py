"""What stays float in an INT8 graph: the VQ-SA head but for its big products, and one convolution.

A codeword index is a discontinuity, and the attention logits are differences of large numbers
behind a sigmoid: rounding them to 8 bits changes answers. The products with constant weights
(the folded projection, the classifier) hold nearly all of the head's cost and tolerate INT8.
"""

from __future__ import annotations

import onnx

LOOKUP = "CodebookLookup"
DOMAIN = "edgekit"
_PRODUCTS = ("MatMul", "Gemm")
_POOLING = ("ReduceMean", "GlobalAveragePool")


def float_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that must not be quantized; empty when there is no codebook."""
    nodes = list(model.graph.node)
    producer = {output: node for node in nodes for output in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    lookups = [node for node in nodes if node.op_type == LOOKUP and node.domain == DOMAIN]
    if not lookups:
        return []
    # The pooled feature (or the map's vectors) and everything computed from it; the pooling
    # itself too, which sees the last convolution's output before it would be rounded.
    reached = {_through_reshapes(lookup.input[0], producer) for lookup in lookups}
    makers = [producer[name] for name in reached if name in producer]
    head = [node for node in makers if node.op_type in _POOLING]
    for node in nodes:  # ONNX lists nodes in topological order
        if reached & set(node.input):
            reached.update(node.output)
            head.append(node)
    return [
        node.name
        for node in head
        if not (node.op_type in _PRODUCTS and _weighted(node, constants, producer))
    ]


def first_depthwise(model: onnx.ModelProto) -> list[str]:
    """The name of the first depthwise convolution, where there is one.

    In mobile networks it reads what the stem made of the pixels. Each of its outputs sums 9 of
    these values, so that their rounding is not averaged out as in a product over many channels,
    and every layer behind inherits it: a fifth of all that moves the lookup's margins, and more
    than half where zero-points must be 0 and a ReLU's output has seven bits. It waits for memory
    more than it calculates, and costs little in float.
    """
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in shapes:
            continue
        channels, inputs_of_each = shapes[node.input[1]][:2]
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        if inputs_of_each == 1 and groups == channels > 1:
            return [node.name]
    return []


def _through_reshapes(name: str, producer: dict[str, onnx.NodeProto]) -> str:
    """The tensor that a chain of shape-only nodes starts from."""
    while name in producer and producer[name].op_type in (
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"),
    ):
        name = producer[name].input[0]
    return name


def _weighted(
    node: onnx.NodeProto, constants: set[str], producer: dict[str, onnx.NodeProto]
) -> bool:
    """Whether a product's second factor is a constant, perhaps behind a transpose."""
    return _through_reshapes(node.input[1], producer) in constants
