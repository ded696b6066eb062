"""Finds the batch norms of a backbone whose channels can be removed from its graph."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgekit.graph.channels import Channels, Mask
from edgekit.model.backbones.base import Backbone
from edgekit.model.onnx_graph import onnx_graph

Group = tuple[str, ...]  # names of batch norms whose channels meet
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_OPSET = 18


def prunable(backbone: Backbone, size: tuple[int, int]) -> list[Group]:
    """The batch norms of which a channel, zero in all of a group, can be removed from the graph."""
    device = next(backbone.parameters()).device
    images = torch.zeros(1, 3, *size, device=device)
    was_training = backbone.training
    graph = onnx_graph(backbone, images, ["features"], _OPSET)
    behind = _norms_behind(backbone, images)
    backbone.train(was_training)
    channels = Channels(graph)

    def norm_of(node: onnx.NodeProto) -> str | None:
        return behind.get(node.input[1].removesuffix(".weight"))

    def of_convolution(node: onnx.NodeProto, zero_inputs: Mask) -> Mask:
        return np.full(channels.count(node.output[0]), norm_of(node) is not None)

    zeros = channels.zeros(of_convolution)
    read: dict[str, bool] = {}
    for value in channels.read:
        root = channels.group(value)
        read[root] = read.get(root, True) and bool(zeros[value].all())
    members: dict[str, list[str]] = {}
    for node in channels.convolutions():
        if (name := norm_of(node)) is not None:
            members.setdefault(channels.group(node.output[0]), []).append(name)
    return [tuple(names) for root, names in members.items() if read.get(root, False)]


def _norms_behind(backbone: Backbone, images: Tensor) -> dict[str, str]:
    """The batch norm that reads a layer's output, by the layer's name."""
    names = {module: name for name, module in backbone.named_modules()}
    computed: dict[int, tuple[Tensor, str]] = {}  # with the tensor, which keeps its id from reuse
    found: dict[str, list[str]] = {}

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, _NORMS):
            source = computed.get(id(inputs[0]))
            found.setdefault(names[module], []).append("" if source is None else source[1])
        elif isinstance(output, Tensor):
            computed.setdefault(id(output), (output, names[module]))  # the innermost module

    hooks = [module.register_forward_hook(after) for module in names]
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    return {layers[0]: norm for norm, layers in found.items() if len(layers) == 1}
