"""2:4 sparsity: of every four weights that an output multiplies by inputs in a row, two go.

NVIDIA's sparse tensor cores (Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv
2104.08378) take weights in this pattern and skip the zeros. Which two go is decided by magnitude,
anew in every step, and how soon by a threshold that grows with what has been learned, as LATS has
it (see `prune`), but from zero to the larger one of the two in the first part of training: what
is left then learns to do without the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgekit.core.errors import UsageError
from edgekit.model.backbones.efficientnet_lite import SamePadConv2d
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.method import Method
from edgekit.training.methods.replacing import replace

_SHARPNESS = 4  # of the threshold; 1 is the paper's, which weakens the weights that stay more
_ARRIVED = 0.5  # of the learning: from then on there are two of four
_TINY = 1e-30
# By exact type: other layers may compute with something else than their weight.
_LAYERS = (nn.Conv2d, SamePadConv2d, nn.Linear)


class Thinned(nn.Module):
    """A layer of whose weights only a part is left, at the end two of four."""

    rest: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("rest", layer.weight.detach().new_ones(()))  # of the learning

    def forward(self, x: Tensor) -> Tensor:
        """The layer with what is left; gradients are as if all were."""
        weight = self.layer.weight
        thinned = weight + (weight * self._left() - weight).detach()
        output: Tensor = functional_call(self.layer, {"weight": thinned}, x)
        return output

    @torch.no_grad()
    def plain(self) -> nn.Conv2d | nn.Linear:
        """The layer with two of four weights, be the thresholds there or not."""
        weight = self.layer.weight
        weight.mul_(self._left() * (weight.abs() > _third_largest(weight)))
        return self.layer

    @torch.no_grad()
    def _left(self) -> Tensor:
        """The share that is left of each weight."""
        weight = self.layer.weight
        way = ((1 - self.rest) / _ARRIVED).clamp(max=1)  # that the thresholds have come
        ratio = way * _third_largest(weight) / weight.abs().clamp_min(_TINY)
        return (1 - ratio**_SHARPNESS).clamp_min(0)


class TwoOfFour(Method):
    """2:4 weights in all layers of a backbone that can have them."""

    name = "two_of_four"

    def __init__(self, model: VQSA) -> None:
        if not any(_is_chosen(module) for module in model.backbone.modules()):
            raise UsageError(
                "two_of_four finds no layer in this backbone whose inputs are a multiple of four: "
                "leave --two-of-four out"
            )

    def attach(self, model: VQSA) -> None:
        """See `Method`; the thresholds are zero, so the model answers as before."""
        twins: dict[nn.Module, Thinned] = {}  # a layer may have several places
        for name, module in list(model.backbone.named_modules(remove_duplicate=False)):
            if _is_chosen(module):
                twins.setdefault(module, Thinned(module))
                replace(model.backbone, name, twins[module])

    @torch.no_grad()
    def advance(self, model: VQSA, share: float) -> None:
        """See `Method`: the thresholds make their part of the way."""
        for module in model.backbone.modules():
            if isinstance(module, Thinned):
                module.rest.mul_(1 - share)

    def detach(self, model: VQSA) -> None:
        """See `Method`."""
        plain: dict[nn.Module, nn.Module] = {}
        for name, module in list(model.backbone.named_modules(remove_duplicate=False)):
            if isinstance(module, Thinned):
                if module not in plain:
                    plain[module] = module.plain()
                replace(model.backbone, name, plain[module])


def _is_chosen(module: nn.Module) -> bool:
    """Whether every output multiplies a multiple of four inputs.

    The groups of a convolution read a few inputs each, a depthwise one's a single one.
    """
    if type(module) not in _LAYERS:
        return False
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return getattr(module, "groups", 1) == 1 and module.weight.shape[1] % 4 == 0


def _third_largest(weight: Tensor) -> Tensor:
    """For each weight [out, in, ...] the third largest magnitude of its four, in its shape."""
    fours = weight.detach().abs().unflatten(1, (-1, 4))
    one, two, three, four = fours.unbind(2)
    highest = torch.minimum(torch.maximum(one, two), torch.maximum(three, four))
    lowest = torch.maximum(torch.minimum(one, two), torch.minimum(three, four))
    third = torch.minimum(highest, lowest)
    return third.unsqueeze(2).expand_as(fours).flatten(1, 2)
