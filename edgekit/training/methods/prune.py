"""Pruning of the channels that the loss needs least, on the schedule of LATS.

After Chen, Ma, Fang, Zheng, Yu and Tian, "A Unified Framework for Soft Threshold Pruning", ICLR
2023 (arXiv 2302.13019): what is below a threshold acts as zero, what is above as if closer to it,
gradients pass both, and the threshold grows in proportion to the learning rate. The paper measures
a weight by its magnitude. A channel is measured here by what the loss would change by without it,
to first order (Molchanov et al., CVPR 2019, arXiv 1906.10771): by magnitude, networks with batch
norm lose what they need (docs/methods.md). It acts on the scales and shifts of the batch norm
behind a convolution; channels that are added up or multiplied vanish together or not at all, and
the export removes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgekit.core.errors import UsageError
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.method import Method
from edgekit.training.methods.prunable import Group
from edgekit.training.methods.replacing import replace

_SHARPNESS = 4  # of the threshold; 1 is the paper's, which weakens the channels that stay more
_SCALED = ("weight", "bias")  # by the gate
_MEMORY = 0.98  # of a channel's effect, per step
_TINY = 1e-12


class Gated(nn.Module):
    """A batch norm of whose channels only a part is left: of their scales and their shifts."""

    effect: Tensor  # mean square of what the loss would change by without a channel
    threshold: Tensor
    left: Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        scale = norm.get_parameter("weight").detach()
        self.register_buffer("effect", torch.zeros_like(scale))
        self.register_buffer("threshold", scale.new_zeros(()))
        self.register_buffer("left", torch.ones_like(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The norm with what is left; gradients are as if all were."""
        values = {name: self.norm.get_parameter(name) for name in _SCALED}
        gated = {
            name: value + (value * self.left - value).detach() for name, value in values.items()
        }
        output: Tensor = functional_call(self.norm, gated, x)
        return output

    def change(self) -> Tensor:
        """What the loss of this step would change by, to first order: values times gradients."""
        change = torch.zeros_like(self.effect)
        for parameter in map(self.norm.get_parameter, _SCALED):
            if parameter.grad is not None:
                change += parameter * parameter.grad
        return change


class Prune(Method):
    """Prunes a share of all channels that can be removed from a backbone."""

    name = "prune"
    shrinks = True

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
        gates = list(itertools.chain(*groups))
        changes = [gate.change() for gate in gates]
        if torch.cat(changes).isfinite().all():  # in half precision a gradient may overflow
            for gate, change in zip(gates, changes, strict=True):
                gate.effect.lerp_(change.square(), 1 - _MEMORY)
        sizes = _sizes(groups)
        going, final = self._going(sizes)
        for members, size, goes in zip(groups, sizes, going, strict=True):
            for gate in members:
                gate.threshold.lerp_(final, share).clamp_(max=final)
                # Where nothing is lost by it, at once: no threshold would take a size of 0.
                gate.left.copy_(_left(size, gate.threshold) * ~(goes & (size == 0)))

    @torch.no_grad()
    def detach(self, model: VQSA) -> None:
        """See `Method`; what the last threshold will take is gone already, so the share holds."""
        groups = self._gated(model)
        sizes = _sizes(groups)
        going, _ = self._going(sizes)
        for names, gates, size, goes in zip(self._groups, groups, sizes, going, strict=True):
            left = _left(size, gates[0].threshold) * ~goes
            for name, gate in zip(names, gates, strict=True):
                for parameter in _SCALED:
                    gate.norm.get_parameter(parameter).mul_(left)
                replace(model.backbone, name, gate.norm)

    def _gated(self, model: VQSA) -> list[list[Gated]]:
        modules = dict(model.backbone.named_modules())
        found = [[modules[name] for name in names] for names in self._groups]
        return [[gate for gate in gates if isinstance(gate, Gated)] for gates in found]

    def _going(self, sizes: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Which channels of each group have to go, and the largest of their sizes."""
        everything = torch.cat(list(sizes))
        count = round(self._share * len(everything)) if everything.any() else 0
        count = min(count, len(everything) - len(sizes))
        ranked = torch.cat([_with_last(size) for size in sizes])
        order = ranked.argsort(stable=True)[:count]
        mask = torch.zeros_like(everything, dtype=torch.bool)
        mask[order] = True
        going = list(mask.split([len(size) for size in sizes]))
        return going, everything[order[-1]] if count else everything.new_zeros(())


def _sizes(groups: Sequence[Sequence[Gated]]) -> list[Tensor]:
    """How much each channel of each group matters; 1 on average, while gradients get smaller."""
    sizes = [torch.stack([gate.effect for gate in gates]).sum(0).sqrt() for gates in groups]
    mean = torch.cat(sizes).mean().clamp_min(_TINY)
    return [size / mean for size in sizes]


def _with_last(sizes: Tensor) -> Tensor:
    """The sizes, the largest being beyond all others: no layer ends."""
    ranked = sizes.clone()
    ranked[sizes.argmax()] = torch.inf
    return ranked


def _left(sizes: Tensor, threshold: Tensor) -> Tensor:
    """The share that is left of channels; all of the largest, so that no layer ends."""
    left = (1 - (threshold / sizes.clamp_min(_TINY)) ** _SHARPNESS).clamp_min(0)
    left[sizes.argmax()] = 1
    return left
