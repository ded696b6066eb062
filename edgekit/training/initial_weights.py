"""Where training starts: which weights, and the preprocessing that belongs to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.efficientnet_lite import lite0_imagenet_file
from edgekit.model.backbones.imported import ImportedBackbone
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.backbones.timm import TimmBackbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import default_preprocessing, load_checkpoint
from edgekit.model.vqsa import VQSA, VQSAHead
from edgekit.training.config import TrainConfig


@dataclass(frozen=True)
class Start:
    """A backbone, and a trained head if the weights include one."""

    backbone: Backbone
    preprocessing: Preprocessing
    is_trained: bool
    origin: str
    head: VQSAHead | None = None
    card: ModelCard | None = None

    def model_for(self, classes: tuple[str, ...], config: TrainConfig) -> tuple[VQSA, bool]:
        """The model to train, and whether its head starts from trained weights."""
        torch.manual_seed(config.seed)
        model = VQSA(self.backbone, len(classes), config.vqsa())
        attention = model.head.attention
        if attention is not None and config.attention_start == "self":
            with torch.no_grad():
                attention.query.copy_(attention.key)
        card = self.card
        if card is None or self.head is None:
            return model, False
        if card.classes != classes or card.vqsa != config.vqsa():
            return model, False
        model.head = self.head
        return model, True


def starting_point(config: TrainConfig, console: Console) -> Start:
    """Load or create the backbone."""
    if config.weights == "auto" and config.backbone == "efficientnet-lite0":
        return _packaged(config)
    size = None if config.image_size is None else (config.image_size, config.image_size)
    if config.weights in ("auto", "none"):
        torch.manual_seed(config.seed)
        backbone = create_backbone(config.backbone, size)
        preprocessing = _sized(default_preprocessing(backbone), config)
        if isinstance(backbone, ImportedBackbone):
            return _imported(backbone, preprocessing, config, console)
        if config.weights == "auto":
            console.info(f"{config.backbone} comes without weights: it starts from random ones")
        return Start(backbone, preprocessing, False, "random weights")
    path = Path(config.weights)
    loaded = load_checkpoint(path, backbone=config.backbone, to_train=True, size=size)
    if loaded.card.backbone != config.backbone:
        raise UsageError(
            f"{path} holds a {loaded.card.backbone}: add --backbone {loaded.card.backbone}"
        )
    backbone = loaded.model.backbone
    if size is not None and isinstance(backbone, TimmBackbone):
        backbone = backbone.at_size(size)
    return Start(
        backbone,
        _sized(loaded.card.preprocessing, config),
        True,
        path.name,
        loaded.model.head if loaded.card.origin == "edgekit" else None,
        loaded.card,
    )


def _packaged(config: TrainConfig) -> Start:
    loaded = load_checkpoint(lite0_imagenet_file())  # its classifier is discarded
    preprocessing = _sized(loaded.card.preprocessing, config)
    return Start(loaded.model.backbone, preprocessing, True, "ImageNet weights")


def _imported(
    backbone: ImportedBackbone, preprocessing: Preprocessing, config: TrainConfig, console: Console
) -> Start:
    """A network that comes as its function makes it: with weights, unless the user says none."""
    backbone.check_repeatable()
    layout, is_trained = backbone.layout, config.weights == "auto"
    console.info(
        f"{backbone.name}: its feature is a {layout.form} of width {layout.width}, its weights are "
        f"taken {'as trained ones (--weights none: as random ones)' if is_trained else 'as random'}"
    )
    return Start(backbone, preprocessing, is_trained, f"the weights of {backbone.name}")


def _sized(preprocessing: Preprocessing, config: TrainConfig) -> Preprocessing:
    """``preprocessing`` with the size and crop that the settings ask for."""
    if config.image_size is not None:
        side = config.image_size
        preprocessing = dataclasses.replace(preprocessing, size=(side, side), crop_ratio=1.0)
    if config.crop_ratio is not None:
        preprocessing = dataclasses.replace(preprocessing, crop_ratio=config.crop_ratio)
    return preprocessing
