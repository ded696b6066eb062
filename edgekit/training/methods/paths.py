"""Path ensemble: residual branches that do not help are removed, and the rest learn a scale.

After Chang, Wang, Luo, Wang and Shou, "Revisiting Vision Transformer from the View of Path
Ensemble", ICCV 2023 (arXiv 2308.06548). A transformer's block adds two branches to what it reads,
attention and MLP, and each ends in a linear layer y = Wx + b. Removed, y is 0; kept, it is s * y
with a learned s per channel (EnsembleScale). Either is a linear layer again: W' = 0, b' = 0, or
W' = diag(s) W, b' = s * b. Nothing that comes before or after the layer has to be known for that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.model.backbones.base import Backbone
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.method import Evaluate, Method
from edgekit.training.methods.replacing import replace
from edgekit.training.results import Evaluation

# The last layer of each branch, as timm names it in a block that has ``norm1`` and ``norm2``.
_BRANCHES = (("attn", "proj"), ("mlp", "fc2"))


class ScaledPath(nn.Module):
    """The last layer of a branch, scaled, or silent once the branch is removed."""

    kept: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(layer.weight.new_ones(layer.out_features))
        # A buffer: the choice is saved and resumed as weights are.
        self.register_buffer(
            "kept", torch.tensor(not _is_silent(layer), device=layer.weight.device)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The branch's share of the sum."""
        if not self.kept:  # no product with 0: no gradients either, and so no backward pass
            return x.new_zeros(*x.shape[:-1], len(self.scale))
        share: Tensor = self.layer(x) * self.scale
        return share

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The layer with the scale in its weight and bias, or with zeros in both."""
        for parameter in (self.layer.weight, self.layer.bias):
            if parameter is None:
                continue
            if self.kept:
                rows = parameter.double().reshape(len(self.scale), -1)
                parameter.copy_((rows * self.scale.double()[:, None]).reshape(parameter.shape))
            else:
                parameter.zero_()  # whatever it was, NaN too
        return self.layer


class Paths(Method):
    """Removes the worst paths of a backbone before it learns, and scales the others."""

    name = "remove_paths"
    shrinks = True

    def __init__(self, count: int, model: VQSA) -> None:
        self._count = count
        left = sum(not _is_silent(layer) for _, layer in _last_layers(model.backbone))
        if not left:
            raise UsageError(
                "remove_paths finds no branches of a timm transformer in this backbone: leave "
                "--remove-paths out, it does not fit"
            )
        if count >= left:
            raise UsageError(
                f"remove_paths {count} would remove all {left} paths of this backbone: "
                f"{left - 1} is the most, and a few are usual"
            )

    def attach(self, model: VQSA) -> None:
        """See `Method`; every scale is 1. What an earlier run removed stays removed."""
        for name, layer in list(_last_layers(model.backbone)):
            replace(model.backbone, name, ScaledPath(layer))
        # Those of a removed path are without gradients.
        model.backbone.uses_all_parameters = False

    def start(self, model: VQSA, evaluate: Evaluate, console: Console) -> None:
        """See `Method`: one path after the other, that without which errors are lowest."""
        model.eval()
        for _ in range(self._count):
            kept = {name: path for name, path in _paths(model.backbone) if path.kept}
            whole, *without = evaluate([model, *(_without(model, name) for name in kept)])
            name, left = min(
                zip(kept, without, strict=True),
                key=lambda pair: (pair[1].criterion, pair[1].clean_error),
            )
            kept[name].kept.fill_(False)
            branch = name.rpartition(".")[0]
            console.info(f"removed {branch}: {_change(whole, left)}")

    def detach(self, model: VQSA) -> None:
        """See `Method`."""
        for name, path in list(_paths(model.backbone)):
            replace(model.backbone, name, path.folded())


def _last_layers(backbone: Backbone) -> Iterator[tuple[str, nn.Linear]]:
    """The last layers of all branches, by name, in the network's order."""
    for name, block in backbone.named_modules():
        parts = dict(block.named_children())
        if not parts.keys() >= {"norm1", "norm2", *(part for part, _ in _BRANCHES)}:
            continue
        for part, last in _BRANCHES:
            layer = getattr(parts[part], last, None)
            if type(layer) is nn.Linear:  # others may compute with something else than a weight
                yield f"{name}.{part}.{last}", layer


def _paths(backbone: Backbone) -> Iterator[tuple[str, ScaledPath]]:
    return ((name, one) for name, one in backbone.named_modules() if isinstance(one, ScaledPath))


def _without(model: VQSA, name: str) -> VQSA:
    """``model`` without one path. The two share all tensors but that choice."""
    shared = {id(one): one for one in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    path = twin.backbone.get_submodule(name)
    assert isinstance(path, ScaledPath)
    path.kept = torch.zeros_like(path.kept)
    return twin


def _is_silent(layer: nn.Linear) -> bool:
    return not layer.weight.any() and (layer.bias is None or not layer.bias.any())


def _change(before: Evaluation, after: Evaluation) -> str:
    text = f"validation error {before.clean_error:.1%} -> {after.clean_error:.1%}"
    if before.mean_corruption_error is not None and after.mean_corruption_error is not None:
        change = f"{before.mean_corruption_error:.1%} -> {after.mean_corruption_error:.1%}"
        text += f", mean corruption error {change}"
    return text
