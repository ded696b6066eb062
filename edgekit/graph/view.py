"""One view of an ONNX graph: what computes and reads each value, what is stored, what is needed.

It works on the protobuf itself rather than with the package onnx-ir: NNCF, the runtimes and the
cache all exchange `onnx.ModelProto`, and a round trip would cost a second copy of hundreds of
megabytes to save the few lines below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import onnx
from onnx import helper

from edgekit.core.errors import EdgekitError

CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
MATRIX_PRODUCTS: Final = ("Gemm", "MatMul")
PRODUCTS: Final = (*CONVOLUTIONS, *MATRIX_PRODUCTS)
PAIR: Final = ("QuantizeLinear", "DequantizeLinear")
SHAPES: Final = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")
# What passes 8-bit values on unchanged: the maximum of some is one of them.
PASS_THROUGH: Final = ("MaxPool", *SHAPES)

Nodes = list[onnx.NodeProto]


class Graph:
    """A snapshot of a graph: the nodes may change, the view does not follow."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: Nodes = list(model.graph.node)  # each after those that it reads
        self.constants = constants(model)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.outputs = {output.name for output in model.graph.output}

    @property
    def has_quantized_values(self) -> bool:
        """Whether anything in it is in 8 bits."""
        return any(node.op_type == "DequantizeLinear" for node in self.nodes)

    @property
    def has_scales_by_channel(self) -> bool:
        """Whether an activation has one scale per channel, as NNCF gives depthwise convolutions."""
        return any(
            node.op_type == "QuantizeLinear"
            and node.input[0] not in self.constants
            and node.input[1] in self.constants
            and math.prod(self.constants[node.input[1]].dims) > 1
            for node in self.nodes
        )

    @cached_property
    def readers(self) -> dict[str, Nodes]:
        """The nodes that read each value; one that reads it twice is listed twice."""
        readers: dict[str, Nodes] = {}
        for node in self.nodes:
            for name in filter(None, node.input):
                readers.setdefault(name, []).append(node)
        return readers

    def source(self, name: str, through: Collection[str]) -> str:
        """Follow first inputs back through nodes of types ``through``, to where they begin."""
        while name in self.producer and self.producer[name].op_type in through:
            name = self.producer[name].input[0]
        return name

    def is_constant(self, name: str) -> bool:
        """Whether a value is stored, possibly in 8 bits or in another shape."""
        return self.source(name, (*SHAPES, *PAIR)) in self.constants

    def is_quantized(self, name: str) -> bool:
        """Whether a value comes out of 8 bits, directly or through nodes that pass it on."""
        node = self.producer.get(self.source(name, PASS_THROUGH))
        return node is not None and node.op_type == "DequantizeLinear"

    def unquantized(self, name: str, added: dict[str, onnx.NodeProto]) -> str:
        """The same value before its Q/DQ pair; nodes needed for it are added to ``added``."""
        node = self.producer[name]
        if node.op_type == "DequantizeLinear":
            quantize = self.quantizer(node)
            if quantize is None:
                raise EdgekitError(f"node {node.name} dequantizes what nothing quantized")
            return str(quantize.input[0])
        copied_value = f"{name}/float"
        if name not in added:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{node.name}/float"
            copy.input[0] = self.unquantized(node.input[0], added)
            copy.output[:] = [copied_value]
            added[name] = copy
        return copied_value

    def quantizer(self, dequantize: onnx.NodeProto) -> onnx.NodeProto | None:
        """The QuantizeLinear before a DequantizeLinear; None if that reads a stored tensor."""
        node = self.producer.get(dequantize.input[0])
        return node if node is not None and node.op_type == "QuantizeLinear" else None

    def depending_on(self, names: Iterable[str]) -> Nodes:
        """The nodes that depend on any of these values, in the graph's order."""
        reached = set(names)
        dependents = []
        for node in self.nodes:
            if reached & set(node.input):
                reached.update(node.output)
                dependents.append(node)
        return dependents

    def back(
        self,
        name: str,
        through: Collection[str],
        to: Collection[str],
        stop: Callable[[onnx.NodeProto], bool] = lambda node: False,
    ) -> tuple[Nodes, Nodes]:
        """Nodes of types ``through`` upstream of a value, and the first ones of types ``to``.

        The search ends at nodes of other types, and where ``stop`` says so.
        """

        def producers(value: str) -> Nodes:
            node = self.producer.get(value)
            return [] if node is None or stop(node) else [node]

        return _walk(name, through, to, producers, lambda node: node.input)

    def ahead(
        self, name: str, through: Collection[str], to: Collection[str]
    ) -> tuple[Nodes, Nodes]:
        """The same downstream."""
        return _walk(
            name, through, to, lambda value: self.readers.get(value, []), lambda node: node.output
        )


def _walk(
    name: str,
    through: Collection[str],
    to: Collection[str],
    step: Callable[[str], Nodes],
    onwards: Callable[[onnx.NodeProto], Iterable[str]],
) -> tuple[Nodes, Nodes]:
    names = [name]
    passed: dict[str, onnx.NodeProto] = {}
    reached: dict[str, onnx.NodeProto] = {}
    while names:
        for node in step(names.pop()):
            if node.name in passed or node.name in reached:
                continue
            if node.op_type in to:
                reached[node.name] = node
            elif node.op_type in through:
                passed[node.name] = node
                names.extend(onwards(node))
    return list(passed.values()), list(reached.values())


def has_bodies(model: onnx.ModelProto) -> bool:
    """Whether branches or loops have graphs of their own, which read values without naming them."""
    return any(item.HasField("g") for node in model.graph.node for item in node.attribute)


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The stored tensors by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def with_outputs(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of ``model`` with the float values ``names`` as additional outputs."""
    extended = copied(model)
    add_outputs(extended, names)
    return extended


def add_outputs(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Make the float values ``names`` outputs as well."""
    for name in names:
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(value)


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace a graph's nodes; some of the new ones may be its own."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def insert_after(model: onnx.ModelProto, added: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
    """Insert nodes after the one that computes their input, by whose name they are keyed."""
    nodes: Nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for name in node.output:
            nodes.extend(added.get(name, ()))
    set_nodes(model.graph, nodes)


def replace_input(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    """Make ``nodes`` read the value ``new`` instead of ``old``."""
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that no output depends on."""
    needed = drop_unused_nodes(model)
    stored = model.graph.initializer
    for place in reversed(range(len(stored))):
        if stored[place].name not in needed:
            del stored[place]


def drop_unused_nodes(model: onnx.ModelProto) -> set[str]:
    """Remove nodes that no output depends on; return the names of all values still needed."""
    nodes = model.graph.node
    needed = {output.name for output in model.graph.output}
    for place in reversed(range(len(nodes))):
        if needed & set(nodes[place].output):
            needed.update(nodes[place].input)
        else:
            del nodes[place]
    return needed


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    standard = (entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(next(standard).version)
