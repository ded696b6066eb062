"""Computes the mean patch of a convolution: what a weight multiplies, averaged over all positions.

A convolution is linear: its mean output is what the weights make of the mean patch. So a mean
output needs one position's products instead of thousands of positions', and is known for any
weights once the patch is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from edgekit.graph.padding import pads_of
from edgekit.graph.reductions import numbers, reduce_over
from edgekit.graph.view import attributes

_EVERYTHING = np.iinfo(np.int64).max


def add_mean_patch(
    model: onnx.ModelProto, conv: onnx.NodeProto, kernel: Sequence[int], source: str, name: str
) -> None:
    """Append to ``model`` the mean patch of ``conv`` with the input ``source``; call it ``name``.

    It is [B, channels, *kernel], and ``kernel`` the height and width of the weights. The padding
    of ``conv`` must be known.
    """
    options = attributes(conv)
    strides = options.get("strides", [1, 1])
    dilations = options.get("dilations", [1, 1])
    pads = pads_of(conv)
    assert pads is not None

    def add(kind: str, inputs: list[str], name: str, **given: int) -> str:
        model.graph.node.append(helper.make_node(kind, inputs, [name], name=name, **given))
        return name

    if any(pads):
        borders = numbers(model, [0, 0, *pads[:2], 0, 0, *pads[2:]])
        source = add("Pad", [source, borders], f"{name}/padded")

    def taken(value: str, axis: int, place: int, name: str) -> str:
        """What the weights of one row or column (``axis`` 2 or 3) multiply, averaged over it."""
        # The last position ends at the edge: this weight then is at its own place before it.
        start = place * dilations[axis - 2]
        behind = (kernel[axis - 2] - 1 - place) * dilations[axis - 2]
        if start or behind or strides[axis - 2] != 1:
            limits = ([start], [-behind if behind else _EVERYTHING], [axis], [strides[axis - 2]])
            given = [numbers(model, each) for each in limits]
            value = add("Slice", [value, *given], f"{name}/taken")
        return reduce_over(model, "ReduceMean", value, [axis], f"{name}/mean", keep=True)

    rows = []
    for down in range(kernel[0]):  # first along the columns, which leaves a single row to slice
        row = taken(source, 2, down, f"{name}/{down}")
        across = [taken(row, 3, right, f"{name}/{down},{right}") for right in range(kernel[1])]
        rows.append(add("Concat", across, f"{name}/{down}/means", axis=3))
    add("Concat", rows, name, axis=2)
