"""A small data set that a network can learn in seconds, and a small trained-looking backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.core.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig

QUIET = Console(verbosity=-1)
CLASSES = ("dark", "middle", "bright")


def write_data(folder: Path, train: int = 48, validation: int = 15) -> Path:
    """Noisy gray images of three brightness levels, in all four splits."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array(CLASSES)}
    for split, count in (("train", train), ("val", validation), ("calib", 3), ("test", 15)):
        labels = np.arange(count) % len(CLASSES)
        level = 60 + 70 * labels
        noise = rng.integers(-40, 41, (count, 32, 32, 3))
        arrays[f"{split}_images"] = (level[:, None, None, None] + noise).astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    path = folder / "levels.npz"
    np.savez(path, **arrays)
    return path


def write_backbone(folder: Path) -> Path:
    """A ResNet-18 checkpoint; random, but a fixed one, as trained weights are."""
    torch.manual_seed(7)
    config = VQSAConfig(output="none")
    model = VQSA(create_backbone("resnet18"), 2, config)
    card = ModelCard(
        backbone="resnet18",
        width=512,
        classes=("a", "b"),
        preprocessing=Preprocessing(size=(32, 32), crop_ratio=1.0),
        vqsa=config,
    )
    path = folder / "resnet18.safetensors"
    save_checkpoint(path, model, card)
    return path


def frozen_config(folder: Path, **changes: object) -> TrainConfig:
    """Head training on cached features of the small data."""
    settings: dict[str, object] = {
        "data": str(write_data(folder)),
        "out": folder / "run",
        "cache": folder / "features",
        "backbone": "resnet18",
        "weights": str(write_backbone(folder)),
        "codebook_size": 12,
        "seen": "gaussian_noise,contrast",
        "batch_size": 12,
        "epochs": 3,
        "lr": 0.02,
        "ema": 0.5,
        "workers": 0,
        "threads": 1,
        "device": "cpu",
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def image_config(folder: Path, **changes: object) -> TrainConfig:
    """Training of everything from random weights."""
    changes = {"weights": "none", "image_size": 32, "epochs": 2, "validation_images": 6} | changes
    return frozen_config(folder, **changes)
