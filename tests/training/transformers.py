"""A small transformer of timm's blocks, shared by these tests."""

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.timm import import_timm

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)
BRANCHES = [f"blocks.{block}.{part}" for block in range(3) for part in ("attn", "mlp")]
ENDS = {"attn": "proj", "mlp": "fc2"}


class TinyTransformer(Backbone):
    """Three blocks on 16 patches of an image of 32 pixels; the second one has LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        import_timm()
        from timm.models.vision_transformer import Block

        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.blocks = nn.Sequential(
            *(Block(24, 2, 2.0, qkv_bias=True, init_values=start) for start in (None, 0.3, None))
        )
        self.norm = nn.LayerNorm(24)
        self.channels = 24

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        tokens: Tensor = self.norm(self.blocks(x.flatten(2).transpose(1, 2)))
        return tokens.transpose(1, 2).reshape(x.shape)


def end_of(backbone: nn.Module, branch: str) -> nn.Linear:
    """The last layer of a branch of a plain network."""
    layer = backbone.get_submodule(f"{branch}.{ENDS[branch.rpartition('.')[2]]}")
    assert isinstance(layer, nn.Linear)
    return layer


@torch.no_grad()
def silence(backbone: nn.Module, *branches: str) -> None:
    """Give these branches' last layers zeros."""
    for branch in branches:
        for parameter in end_of(backbone, branch).parameters():
            parameter.zero_()
