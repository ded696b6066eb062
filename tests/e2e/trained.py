"""A small model that has really learned something, and its bundle, made once for these tests."""

import dataclasses
import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
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
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.steps.options import SourceOptions
from edgekit.workflows.build import build
from tests import shared
from tests.exporting import remember_operators

remember_operators()
DATA = "builtin:fashion-mnist"
SIZE = (64, 64)
SEEN = ("gaussian_noise", "defocus_blur", "fog", "contrast")
PREPROCESSING: Preprocessing = dataclasses.replace(LITE0, size=SIZE)


def cache() -> Path:
    """An EDGEKIT_CACHE for tests that do not mind what is in there; `bundle` alone calibrates."""
    return shared.folder("cache")


def cache_of_floats(folder: Path) -> Path:
    """A cache at ``folder`` that knows the float graph, and nothing of INT8."""
    with own_cache():
        context = Context(Console(verbosity=-1), cache())
        source = SourceOptions(str(checkpoint()))
        export(context, obtain_checkpoint(context, source), source)
    shutil.copytree(cache() / "export", folder / "export", dirs_exist_ok=True)
    return folder


@contextmanager
def own_cache() -> Iterator[None]:
    """`cache` is this process's EDGEKIT_CACHE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(cache()))
        yield


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


def checkpoint() -> Path:
    """The model's file."""
    return shared.once("trained.safetensors", _train)


def _train(path: Path) -> None:
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
    save_checkpoint(path, model, card)


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
    """The INT8 bundle of `checkpoint`; tests must not write into it."""
    config = BuildConfig(
        checkpoint=str(checkpoint()),
        data=DATA,
        target=(target,),
        out=str(shared.folder("build")),
        recipe="fast",
        bench=False,
        parity=False,
        watch=False,
    )
    with shared.alone("build"), own_cache():
        return build(config, Console(verbosity=-1))[0].path
