"""A small model that has really learned something, and its bundle, made once for these tests."""

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgekit.core.console import Console
from edgekit.data.corruptions import BENCHMARK15, corrupt
from edgekit.data.datasets import open_dataset
from edgekit.data.splits import split_dataset
from edgekit.data.transforms import LITE0, Preprocessing
from edgekit.model.backbones.efficientnet_lite import lite0_imagenet_file
from edgekit.model.card import ModelCard, TrainingProtocol
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.steps.config import BuildConfig
from edgekit.workflows.build import build

DATA = "builtin:fashion-mnist"
SIZE = (64, 64)
SEEN = ("gaussian_noise", "defocus_blur", "fog", "contrast")
PREPROCESSING: Preprocessing = dataclasses.replace(LITE0, size=SIZE)


@functools.cache
def folder() -> Path:
    """A temporary folder that lives as long as the tests; also their EDGEKIT_CACHE."""
    path = Path(tempfile.mkdtemp(prefix="edgekit-trained-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def training_images(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``count`` training images, clean and under one of `SEEN`: [2 * count, H, W, 3], labels."""
    dataset = open_dataset(DATA)
    train = split_dataset(dataset).part("train", dataset)
    pixels, labels = [], []
    for index in range(count):
        clean = PREPROCESSING.fit(train.image(index))
        name = SEEN[index % len(SEEN)]
        pixels += [clean, corrupt(clean, name, 1 + index % 5, image_id=train.key(index), seed=1)]
        labels += 2 * [train.label(index)]
    return np.stack(pixels), np.array(labels)


@functools.cache
def checkpoint() -> Path:
    """EfficientNet-Lite0 with ImageNet's weights; a head trained for a few seconds."""
    torch.manual_seed(0)
    vqsa = VQSAConfig(codebook_size=24, output="residual")
    loaded = load_checkpoint(lite0_imagenet_file())
    classes = open_dataset(DATA).classes
    model = VQSA(loaded.model.backbone, len(classes), vqsa).eval()
    pixels, labels = training_images(300)
    with torch.no_grad():
        features = torch.cat(
            [
                model.backbone.features(torch.from_numpy(PREPROCESSING.normalize(part)), "pooled")
                for part in np.array_split(pixels, 10)
            ]
        )
    assert model.head.codebook is not None
    model.head.codebook.initialize(features)
    train_head(model, features, torch.from_numpy(labels))
    card = ModelCard(
        "efficientnet-lite0",
        model.head.width,
        classes,
        PREPROCESSING,
        vqsa,
        TrainingProtocol(seen=tuple(name for name in BENCHMARK15 if name in SEEN), data=DATA),
    )
    path = folder() / "trained.safetensors"
    save_checkpoint(path, model, card)
    return path


def train_head(model: VQSA, features: Tensor, labels: Tensor, steps: int = 80) -> None:
    """Fit what comes behind the attention; the codebook stays where k-means put it."""
    assert model.head.fuse is not None
    model.requires_grad_(False)
    learned = [*model.head.fuse.parameters(), *model.head.classifier.parameters()]
    for parameter in learned:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(learned, lr=1e-3, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(features), (128,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model.head(features[rows]).logits, labels[rows]).backward()
        optimizer.step()


@functools.cache
def bundle(target: str = "cpu") -> Path:
    """The INT8 bundle of `checkpoint`; tests must not write into it. Needs EDGEKIT_CACHE set."""
    config = BuildConfig(
        checkpoint=str(checkpoint()),
        data=DATA,
        target=(target,),
        out=str(folder() / "build"),
        recipe="fast",
        bench=False,
        parity=False,
    )
    return build(config, Console(verbosity=-1))[0].path
