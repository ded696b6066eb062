"""A model and a build that take seconds."""

from pathlib import Path
from typing import Any

import torch

from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard, TrainingProtocol
from edgekit.model.checkpoint import save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.steps.config import BuildConfig
from tests.exporting import remember_operators
from tests.training.training_data import CLASSES, write_data

remember_operators()
HERE, ELSEWHERE = "onnxruntime-cpu", "jetson-orin-nano"


def settings(model: Path, out: Path, **changes: Any) -> BuildConfig:
    """The settings of one, of the model in a folder that the fixture ``model`` made."""
    values: dict[str, Any] = {
        "checkpoint": str(model / "it's a model.safetensors"),
        "data": str(model / "levels.npz"),
        "target": (HERE,),
        "out": str(out),
        "recipe": str(model / "tiny.toml"),
        "guard": False,
        "bench_seconds": 0.05,
        "parity_images": 2,
        "watch": False,  # test_build_watch.py tries it
    }
    return BuildConfig(**(values | changes))


def small_model(folder: Path) -> Path:
    """A folder with data, a checkpoint and a recipe."""
    folder.mkdir(exist_ok=True)
    write_data(folder, train=6, validation=6)
    save_model(folder / "it's a model.safetensors", "fog")
    lines = ("images = 3", 'bias_correction = "none"', 'rounding = "nearest"')
    (folder / "tiny.toml").write_text("\n".join(lines))
    return folder


def save_model(path: Path, *seen: str, plain: bool = False) -> None:
    """A ResNet-18 with six codewords, or none, and random weights, the same every time."""
    torch.manual_seed(3)
    config = VQSAConfig(output="none") if plain else VQSAConfig(codebook_size=6)
    network = VQSA(create_backbone("resnet18"), len(CLASSES), config).eval()
    card = ModelCard(
        "resnet18",
        512,
        CLASSES,
        Preprocessing(size=(32, 32), crop_ratio=1.0),
        config,
        TrainingProtocol(seen=seen),
    )
    save_checkpoint(path, network, card)
