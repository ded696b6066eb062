"""What stays float in an INT8 graph: everything in the VQ-SA head but its big products.

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
