"""Removes channels that are zero whatever the image, with the weights that write and read them.

What is left computes the same: the zeros took part in nothing but sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.graph.channels import Channels, Mask
from edgekit.graph.view import attributes, constants


def remove_zero_channels(model: onnx.ModelProto) -> int:
    """Remove from ``model`` all channels that are provably zero, and return their number.

    Channels of values that meet one by one, as in an addition, are zero only together.
    """
    channels = Channels(model)
    kept = _kept(channels)
    if not kept:
        return 0
    before = _computed(model)
    tensors = constants(model)
    for entry in channels.stored:
        places = kept.get(channels.group(entry.value))
        if places is not None:
            tensor = tensors[entry.tensor]
            values = np.compress(places, numpy_helper.to_array(tensor), axis=entry.axis)
            tensor.CopyFrom(numpy_helper.from_array(values, entry.tensor))
    for node in channels.convolutions():
        for option in node.attribute:
            if option.name == "group" and option.i > 1:  # depthwise
                option.i = tensors[node.input[1]].dims[0]
    _record_shapes(model, kept, channels)
    return before - _computed(model)


def _kept(channels: Channels) -> dict[str, Mask]:
    """The channels to keep of each group that loses some; one at least."""

    def of_convolution(node: onnx.NodeProto, zero_inputs: Mask) -> Mask:
        weights = channels.weights(node.input[1])
        assert weights is not None
        if attributes(node).get("group", 1) == 1:
            weights = weights[:, ~zero_inputs]
        else:  # depthwise
            weights = weights * ~zero_inputs[:, None, None, None]
        bias = channels.weights(node.input[2]) if len(node.input) > 2 else None
        written = weights.any(axis=(1, 2, 3))
        return np.logical_not(written if bias is None else written | (bias != 0))

    zeros = channels.zeros(of_convolution)
    groups = channels.groups()
    removable: dict[str, Mask] = {}
    for value in channels.read:
        root = channels.group(value)
        if root in groups:
            removable[root] = removable.get(root, np.ones(groups[root], bool)) & zeros[value]
    kept = {root: ~zero for root, zero in removable.items() if zero.any()}
    for places in kept.values():
        places[0] |= not places.any()
    return kept


def _record_shapes(model: onnx.ModelProto, kept: Mapping[str, Mask], channels: Channels) -> None:
    recorded = {value.name: value.type.tensor_type.shape for value in model.graph.value_info}
    for name, shape in recorded.items():
        places = kept.get(channels.group(name))
        if places is not None:
            shape.dim[1].dim_value = int(places.sum())
    for name, tensor in constants(model).items():  # whose shapes the exporter records as well
        if name in recorded:
            for dim, size in zip(recorded[name].dim, tensor.dims, strict=False):
                dim.dim_value = size


def _computed(model: onnx.ModelProto) -> int:
    """The number of channels that all convolutions compute."""
    stored = constants(model)
    return sum(
        stored[node.input[1]].dims[0]
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in stored
    )
