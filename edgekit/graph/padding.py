"""Says in numbers how far convolutions pad their input, where a graph leaves it to ``auto_pad``."""

from __future__ import annotations

import onnx
from onnx import helper

from edgekit.graph.view import attributes, constants, copied

_SAME = (b"SAME_UPPER", b"SAME_LOWER")


def pads_of(node: onnx.NodeProto) -> list[int] | None:
    """Top, left, bottom, right of a 2-D ``Conv``; None where they depend on the input's size."""
    options = attributes(node)
    kind = options.get("auto_pad", b"NOTSET")
    if kind in _SAME:
        return None
    return [0] * 4 if kind == b"VALID" else list(options.get("pads", [0] * 4))


def with_explicit_pads(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """``model``, or a copy whose 2-D convolutions have pads, for images of this height and width.

    With ``auto_pad`` there are as many positions as the input has, divided by the stride. Where an
    input's size cannot be told, the convolution stays as it is.
    """
    if all(node.op_type != "Conv" or pads_of(node) is not None for node in model.graph.node):
        return model
    result = copied(model)
    stored = constants(result)
    for dim, side in zip(result.graph.input[0].type.tensor_type.shape.dim[2:], size, strict=False):
        dim.dim_value = side
    del result.graph.value_info[:]  # which may name what is now known
    sizes = _sizes(result)
    for node in result.graph.node:
        if node.op_type != "Conv" or pads_of(node) is not None or node.input[1] not in stored:
            continue
        kernel, inner = stored[node.input[1]].dims[2:], sizes.get(node.input[0])
        if inner is None or len(kernel) != 2:
            continue
        pads = _pads(node, kernel, inner)
        kept = [item for item in node.attribute if item.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])
    return result


def _pads(node: onnx.NodeProto, kernel: list[int], size: tuple[int, int]) -> list[int]:
    options = attributes(node)
    strides, dilations = options.get("strides", [1, 1]), options.get("dilations", [1, 1])
    before, after = [], []
    for axis in range(2):
        last = (-(-size[axis] // strides[axis]) - 1) * strides[axis]  # where the last position is
        total = max(last + (kernel[axis] - 1) * dilations[axis] + 1 - size[axis], 0)
        less = total // 2
        upper = options["auto_pad"] == b"SAME_UPPER"  # which has the odd one behind
        before.append(less if upper else total - less)
        after.append(total - less if upper else less)
    return [*before, *after]


def _sizes(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Height and width of all values [batch, channels, height, width] of which both are known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[2].dim_value and dims[3].dim_value:
            found[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return found
