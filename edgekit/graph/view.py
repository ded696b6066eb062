"""Who produces which value of an ONNX graph, and how to change one and tidy up."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from edgekit.core.errors import EdgekitError

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")
# What hands 8-bit values on as they are: the largest of some is one of them.
PASS_THROUGH = ("MaxPool", *SHAPES)


class Graph:
    """Who produces which value, and whether it went through 8 bits."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.producer = {name: node for node in model.graph.node for name in node.output}
        self._stored = {tensor.name for tensor in model.graph.initializer}

    def is_constant(self, name: str) -> bool:
        """Whether a value is stored, perhaps as 8-bit numbers or in another shape."""
        while name in self.producer and self.producer[name].op_type in (
            *SHAPES,
            "DequantizeLinear",
            "QuantizeLinear",
        ):
            name = self.producer[name].input[0]
        return name in self._stored

    def is_quantized(self, name: str) -> bool:
        """Whether a value is read out of 8 bits; the largest of some 8-bit values is one, too."""
        node = self.producer.get(name)
        if node is None:
            return False
        if node.op_type in PASS_THROUGH:
            return self.is_quantized(node.input[0])
        return bool(node.op_type == "DequantizeLinear")

    def unquantized(self, name: str, added: dict[str, onnx.NodeProto]) -> str:
        """The same value from before its Q/DQ pair; nodes that this takes go into ``added``."""
        node = self.producer[name]
        if node.op_type == "DequantizeLinear":
            quantize = self.producer.get(node.input[0])
            if quantize is None or quantize.op_type != "QuantizeLinear":
                raise EdgekitError(f"node {node.name} dequantizes what nothing quantized")
            return str(quantize.input[0])
        copied = f"{name}/float"
        if name not in added:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{node.name}/float"
            copy.input[0] = self.unquantized(node.input[0], added)
            copy.output[:] = [copied]
            added[name] = copy
        return copied


def with_outputs(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of ``model`` that also gives out the float values ``names``."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    for name in names:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        extended.graph.output.append(value)
    return extended


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that no longer lead to an output."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if needed & set(node.output):
            needed.update(node.input)
        else:
            del graph.node[place]
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]


def insert_copies(model: onnx.ModelProto, added: dict[str, onnx.NodeProto]) -> None:
    """Put each node behind the one it is the float copy of, where its inputs are known."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        nodes.extend(added[name] for name in node.output if name in added)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
