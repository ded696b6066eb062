"""Removes branches that add zero: what training methods remove from a network costs nothing then.

A branch ends in a product whose weights are all zero, and whose bias is, and is added to what went
around it. Its other layers need no zeros: nothing else reads them, so they go with the addition.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import numpy_helper

from edgekit.graph.view import SHAPES, constants, drop_unused, has_bodies, set_nodes

# Zero if all inputs are, if any is, or if the first is. 0 times infinity or NaN is NaN, so a branch
# that overflows would have spoiled the whole answer; without it the answer is the other's.
_ALL = ("Add", "Concat")
_ANY = ("MatMul", "Mul")
_FIRST = (*SHAPES, "Slice")


def drop_zero_branches(model: onnx.ModelProto) -> int:
    """Remove additions of computed zeros, and what only fed them; return how many there were.

    An addition that gives its result another shape than the other summand has is left alone, and
    so is one that is an output, and a graph with bodies of branches or loops. Stored zeros, such as
    a bias of a fresh layer, are no branch.
    """
    stored, shapes = constants(model), _shapes(model)
    known: dict[str, bool] = {}

    def is_zero(name: str) -> bool:
        if name not in known:  # computed values are known before they are read
            known[name] = name in stored and not numpy_helper.to_array(stored[name]).any()
        return known[name]

    if has_bodies(model):
        return 0
    outputs = {output.name for output in model.graph.output}
    instead: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
        for name in node.output:
            known[name] = _gives_zero(node, is_zero)
        (total, *more) = node.output
        summand = _other_summand(node, is_zero, stored)
        same = summand is not None and shapes.get(summand) == shapes.get(total) is not None
        if summand is not None and same and not more and total not in outputs:
            instead[total] = summand
        else:
            nodes.append(node)
    if instead:
        set_nodes(model.graph, nodes)
        drop_unused(model)
        _forget_unknown(model)
    return len(instead)


def _gives_zero(node: onnx.NodeProto, is_zero: Callable[[str], bool]) -> bool:
    """Whether all that a node computes is zero, as far as its type and inputs can tell."""
    inputs = [name for name in node.input if name]
    if node.domain or not inputs:
        return False
    if node.op_type in _ALL:
        return all(map(is_zero, inputs))
    if node.op_type in _ANY:
        return any(map(is_zero, inputs))
    if node.op_type in _FIRST:
        return is_zero(inputs[0])
    if node.op_type in ("Gemm", "Conv"):
        return any(map(is_zero, inputs[:2])) and all(map(is_zero, inputs[2:]))
    return False


def _other_summand(
    node: onnx.NodeProto, is_zero: Callable[[str], bool], stored: dict[str, onnx.TensorProto]
) -> str | None:
    """What a zero that was computed is added to."""
    if node.op_type != "Add" or node.domain:
        return None
    for zero, other in (tuple(node.input), tuple(node.input)[::-1]):
        if zero not in stored and is_zero(zero):
            return str(other)
    return None


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """The recorded shapes in which every dimension has a size or a name."""
    found: dict[str, tuple[int | str, ...]] = {}
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
        if kind.HasField("shape") and all(shape):
            found[value.name] = shape
    return found


def _forget_unknown(model: onnx.ModelProto) -> None:
    """Drop the shapes of values that are no longer computed."""
    computed = {name for node in model.graph.node for name in node.output}
    computed |= {tensor.name for tensor in model.graph.initializer}
    infos = model.graph.value_info
    for place in reversed(range(len(infos))):
        if infos[place].name not in computed:
            del infos[place]
