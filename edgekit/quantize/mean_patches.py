"""Computes the mean of a convolution's outputs over all positions from the mean of its inputs.

A convolution is linear: its mean output is what the weights make of the mean patch, the mean over
all positions of what each of them multiplies. So a mean needs one position's products instead of
thousands of positions'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from edgekit.graph.reductions import numbers, reduce_over
from edgekit.graph.view import attributes

# With fewer output channels per group, the convolution costs less than the mean of its patches.
_WORTH = 8
_EVERYTHING = np.iinfo(np.int64).max


def can_average(node: onnx.NodeProto, shape: Sequence[int]) -> bool:
    """Whether this ``Conv`` with weights of this shape gets cheaper by averaging its inputs."""
    options = attributes(node)
    return (
        len(shape) == 4
        and options.get("auto_pad", b"NOTSET") == b"NOTSET"
        and shape[0] // options.get("group", 1) >= _WORTH
    )


def average_inputs(model: onnx.ModelProto, node: onnx.NodeProto, shape: Sequence[int]) -> None:
    """Make a ``Conv`` compute the mean [B, channels, 1, 1] of its output, from its mean patch.

    What computes the patch is appended to ``model``, ``node`` itself is not. ``shape`` is that of
    its weights.
    """
    options = attributes(node)
    strides = options.get("strides", [1, 1])
    dilations = options.get("dilations", [1, 1])
    pads = options.get("pads", [0] * 4)  # top, left, bottom, right
    kept = [item for item in node.attribute if item.name in ("group", "kernel_shape")]
    del node.attribute[:]
    node.attribute.extend(kept)

    def add(kind: str, inputs: list[str], name: str, **given: int) -> str:
        model.graph.node.append(helper.make_node(kind, inputs, [name], name=name, **given))
        return name

    source = node.input[0]
    if any(pads):
        borders = numbers(model, [0, 0, *pads[:2], 0, 0, *pads[2:]])
        source = add("Pad", [source, borders], f"{node.name}/padded")

    def taken(value: str, axis: int, place: int, name: str) -> str:
        """What the weights of one row or column (``axis`` 2 or 3) multiply, averaged over it."""
        # The last position ends at the edge: this weight then is at its own place before it.
        start = place * dilations[axis - 2]
        behind = (shape[axis] - 1 - place) * dilations[axis - 2]
        if start or behind or strides[axis - 2] != 1:
            limits = ([start], [-behind if behind else _EVERYTHING], [axis], [strides[axis - 2]])
            given = [numbers(model, each) for each in limits]
            value = add("Slice", [value, *given], f"{name}/taken")
        return reduce_over(model, "ReduceMean", value, [axis], f"{name}/mean", keep=True)

    rows = []
    for down in range(shape[2]):  # first along the columns, which leaves a single row to slice
        row = taken(source, 2, down, f"{node.name}/{down}")
        across = [taken(row, 3, right, f"{node.name}/{down},{right}") for right in range(shape[3])]
        rows.append(add("Concat", across, f"{node.name}/{down}/means", axis=3))
    node.input[0] = add("Concat", rows, f"{node.name}/means", axis=2)
