"""Computes the mean of a convolution's outputs over all positions from the mean of its inputs.

A convolution is linear: its mean output is what the weights make of the mean patch, the mean over
all positions of what each of them multiplies. So a mean needs one position's products instead of
thousands of positions'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.graph.view import attributes, constants

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
    stored = set(constants(model))

    def add(kind: str, inputs: list[str], name: str, **given: int) -> str:
        model.graph.node.append(helper.make_node(kind, inputs, [name], name=name, **given))
        return name

    def numbers(values: Sequence[int]) -> str:
        name = f"means/{','.join(map(str, values))}"
        if name not in stored:
            stored.add(name)
            tensor = numpy_helper.from_array(np.array(values, np.int64), name)
            model.graph.initializer.append(tensor)
        return name

    source = node.input[0]
    if any(pads):
        borders = numbers([0, 0, *pads[:2], 0, 0, *pads[2:]])
        source = add("Pad", [source, borders], f"{node.name}/padded")
    rows = []
    for down in range(shape[2]):
        row = []
        for right in range(shape[3]):
            # The last position ends at the edge: this weight then is at its own place before it.
            places = [down, right]
            starts = [place * dilations[axis] for axis, place in enumerate(places)]
            behind = [
                (shape[2 + axis] - 1 - place) * dilations[axis] for axis, place in enumerate(places)
            ]
            taken, name = source, f"{node.name}/{down},{right}"
            if any(starts) or any(behind) or strides != [1, 1]:
                ends = [-size if size else _EVERYTHING for size in behind]
                given = [numbers(values) for values in (starts, ends, [2, 3], strides)]
                taken = add("Slice", [source, *given], f"{name}/taken")
            row.append(add("ReduceMean", [taken, numbers([2, 3])], f"{name}/mean", keepdims=1))
        rows.append(add("Concat", row, f"{node.name}/{down}/means", axis=3))
    node.input[0] = add("Concat", rows, f"{node.name}/means", axis=2)
