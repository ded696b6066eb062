"""Small networks to export, shared by these tests."""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.data.transforms import IMAGENET
from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard, TrainingProtocol
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA

SIZE = (32, 32)
CLASSES = ("bird", "cat", "Hündchen")


class TinyBackbone(Backbone):
    """Two convolutions to a map of [B, 24, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 24, 3, 2, 1)
        self.channels = 24

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.conv2(F.relu(self.norm(self.conv1(images))))
        return features


def tiny(seed: int = 0, **options: Any) -> VQSA:
    """A VQ-SA of `TinyBackbone` whose features spread over its codewords."""
    torch.manual_seed(seed)
    config = VQSAConfig(**{"codebook_size": 20, **options})
    return spread(VQSA(TinyBackbone(), len(CLASSES), config))


def real(name: str, size: tuple[int, int] = SIZE, **options: Any) -> VQSA:
    """A VQ-SA of one of edgekit's backbones, with random weights."""
    torch.manual_seed(0)
    config = VQSAConfig(**{"codebook_size": 100, **options})
    return spread(VQSA(create_backbone(name), len(CLASSES), config), size)


@torch.no_grad()
def spread(model: VQSA, size: tuple[int, int] = SIZE) -> VQSA:
    """Put the codewords where features are, so that not all images get the same code."""
    model.eval()
    if model.head.codebook is not None:
        generator = torch.Generator().manual_seed(1)
        images = 2 * torch.randn(8, 3, *size, generator=generator)
        features = model.backbone.features(images, model.config.quantize)
        features = features.reshape(-1, features.shape[-1])
        rows = model.head.codebook.embeddings
        chosen = torch.randint(len(features), (len(rows),), generator=generator)
        noise = torch.randn(rows.shape, generator=generator)
        rows.copy_(features[chosen] + features.std() * noise)
    if model.head.fuse is not None:  # the residual form starts with no correction at all
        nn.init.normal_(model.head.fuse.weight, std=model.head.width**-0.5)
    return model


def card(model: VQSA, backbone: str = "tiny", size: tuple[int, int] = SIZE) -> ModelCard:
    return ModelCard(
        backbone=backbone,
        width=model.head.width,
        classes=CLASSES,
        preprocessing=dataclasses.replace(IMAGENET, size=size),
        vqsa=model.config,
        training=TrainingProtocol(seen=("fog", "snow")),
    )
