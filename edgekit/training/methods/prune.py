"""Soft-threshold pruning of channels, on the schedule of LATS; the export removes what is zero.

After Chen, Ma, Fang, Zheng, Yu and Tian, "A Unified Framework for Soft Threshold Pruning", ICLR
2023 (arXiv 2302.13019): weights whose magnitude is below a threshold act as zero, the others as if
closer to it, and the gradient passes both as if nothing had happened. A threshold that grows in
proportion to the learning rate means a constant L1 penalty all along. Here it acts on the scale and
shift of the batch norm behind a convolution, so on whole channels, and where channels are added up
or multiplied, on all that meet: they vanish together or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgekit.core.errors import UsageError
from edgekit.graph.channels import Channels, Mask
from edgekit.model.backbones.base import Backbone
from edgekit.model.onnx_graph import onnx_graph
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.replacing import replace

Group = tuple[str, ...]  # names of batch norms whose channels meet
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_SHARPNESS = 4  # of the threshold; 1 would be the paper's, 2 is called the garrote
_SCALED = ("weight", "bias")  # by the gate
_TINY = 1e-12
_OPSET = 18


class Gated(nn.Module):
    """A batch norm of whose channels only a part is left: of their scales and their shifts."""

    threshold: Tensor
    left: Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("threshold", self.scales.new_zeros(()))
        self.register_buffer("left", torch.ones_like(self.scales))

    @property
    def scales(self) -> Tensor:
        """As they learn, before the gate."""
        return self.norm.get_parameter("weight").detach()

    def forward(self, x: Tensor) -> Tensor:
        """The norm with what is left; gradients are as if all were."""
        values = {name: self.norm.get_parameter(name) for name in _SCALED}
        gated = {
            name: value + (value * self.left - value).detach() for name, value in values.items()
        }
        output: Tensor = functional_call(self.norm, gated, x)
        return output


class Prune:
    """Prunes a share of all channels that can be removed from a backbone."""

    name = "prune"

    def __init__(self, share: float, groups: Sequence[Group]) -> None:
        self._share, self._groups = share, groups
        if not groups:
            raise UsageError(
                "prune finds no channel to remove in this backbone: it takes those of "
                "convolutions with a batch norm behind them; leave --prune out"
            )

    def attach(self, model: VQSA) -> None:
        """See `Method`; the threshold is zero, so the model answers as before."""
        for name in itertools.chain(*self._groups):
            replace(model.backbone, name, Gated(model.backbone.get_submodule(name)))

    @torch.no_grad()
    def advance(self, model: VQSA, share: float) -> None:
        """See `Method`: the threshold makes its part of the way that is left, so it gets there."""
        groups = self._gated(model)
        final = self._threshold(groups)
        for gates in groups:
            for gate in gates:
                gate.threshold.lerp_(final, share)
                gate.left.copy_(_left(_sizes(gates), gate.threshold))

    def loss(self, images: Tensor, features: Tensor) -> Tensor:
        """Nothing: the threshold is what a penalty would be."""
        return images.new_zeros(())

    @torch.no_grad()
    def detach(self, model: VQSA) -> None:
        """See `Method`; what the last threshold will take is gone already, so the share holds."""
        groups = self._gated(model)
        final = self._threshold(groups)
        for names, gates in zip(self._groups, groups, strict=True):
            sizes = _sizes(gates)
            left = _left(sizes, gates[0].threshold) * (_left(sizes, final) > 0)
            for name, gate in zip(names, gates, strict=True):
                for parameter in _SCALED:
                    gate.norm.get_parameter(parameter).mul_(left)
                replace(model.backbone, name, gate.norm)

    def _gated(self, model: VQSA) -> list[list[Gated]]:
        modules = dict(model.backbone.named_modules())
        found = [[modules[name] for name in names] for names in self._groups]
        return [[gate for gate in gates if isinstance(gate, Gated)] for gates in found]

    def _threshold(self, groups: Sequence[Sequence[Gated]]) -> Tensor:
        """What is not exceeded by the share of channels that has to go."""
        sizes = torch.cat([_sizes(gates) for gates in groups])
        count = int(self._share * len(sizes))
        return sizes.kthvalue(count).values if count else sizes.new_zeros(())


def _sizes(gates: Sequence[Gated]) -> Tensor:
    """Of a group's channels: the root mean square of their scales."""
    return torch.stack([gate.scales for gate in gates]).square().mean(0).sqrt()


def _left(sizes: Tensor, threshold: Tensor) -> Tensor:
    """The share that is left of channels; all of the largest, so that no layer ends."""
    left = (1 - (threshold / sizes.clamp_min(_TINY)) ** _SHARPNESS).clamp_min(0)
    left[sizes.argmax()] = 1
    return left


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
