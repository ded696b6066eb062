"""Pixels and weights for `families.py`: CIFAR-10 corrupted once, then each family trained on it.

All families see the same pixels, at 64 px; only the normalization is the backbone's own. Images
are decoded, enlarged and corrupted once, by all CPUs, and kept as uint8. Training takes them from
the device's memory: a GPU would wait for any loading process.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.data.base import Dataset, labels
from edgekit.data.corruption_grid import Cells, MakeVariants
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.datasets import open_dataset
from edgekit.data.loading import load_each, rng_for
from edgekit.data.splits import SplitSizes, split_dataset, stratified_sample
from edgekit.data.transforms import Preprocessing
from edgekit.metrics.corruption_error import SEVERITIES
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.backbones.timm import import_timm
from edgekit.model.card import ModelCard, TrainingProtocol
from edgekit.model.checkpoint import save_checkpoint
from edgekit.model.vqsa import VQSA
from edgekit.quantize.calibration_images import choose_images, load_images
from edgekit.quantize.probe import load_probe
from edgekit.quantize.recipes import read_recipe
from edgekit.training.config import TrainConfig
from edgekit.training.initial_weights import Start
from edgekit.training.losses import Learner
from edgekit.training.optimizer import (
    create_optimizer,
    forget_rows,
    learning_rate,
    set_learning_rate,
)

SIDE = 64
CORRUPTED = 2  # corrupted copies of each training image, of which a step takes one
CODEWORDS = 256
SEED = 0
_SHIFT = 4  # pixels that a batch is moved by at most
_PLACED = 4096  # images whose features the codebook's k-means looks at
_QUANTIZER_START = 0.5  # of the training: until then a feature stands in for its codeword
_LAST_RESET = 0.9  # of the training: a codeword moved later would not learn any more
_PIXELS = Preprocessing(size=(SIDE, SIDE), crop_ratio=1.0, interpolation="bicubic")


import_timm()
from timm.models import (  # noqa: E402 - after what makes it importable
    build_model_with_cfg,
    register_model,
)
from timm.models.convmixer import ConvMixer  # noqa: E402


@register_model  # type: ignore[untyped-decorator]
def convmixer_256_8(pretrained: bool = False, **options: Any) -> ConvMixer:
    """A ConvMixer for small images: timm's own are ten times as large."""
    return _convmixer("convmixer_256_8", dim=256, depth=8, kernel_size=9, patch_size=4, **options)


@register_model  # type: ignore[untyped-decorator]
def convmixer_32_2(pretrained: bool = False, **options: Any) -> ConvMixer:
    """One that trains in a second; it learns next to nothing."""
    return _convmixer("convmixer_32_2", dim=32, depth=2, kernel_size=5, patch_size=8, **options)


def _convmixer(name: str, **options: Any) -> ConvMixer:
    options["pretrained_cfg"] = {"input_size": (3, SIDE, SIDE)}  # there are no published weights
    return build_model_with_cfg(ConvMixer, name, False, **options)


@dataclass(frozen=True)
class Sizes:
    """How much of the data is used."""

    train: int
    test: int
    views: int  # corruptions of each test image, in turn with the severities
    calibration: int


def prepare_training(data: Path, folder: Path, sizes: Sizes, workers: int) -> None:
    """Write the pixels that all families are trained on to ``folder``."""
    dataset, part = _part(data, "train", sizes)
    rows = stratified_sample(part, sizes.train, seed=SEED)
    np.save(folder / "train.npy", _pairs(part, rows, workers))
    (folder / "classes.txt").write_text("\n".join(dataset.classes))
    np.save(folder / "train-labels.npy", labels(part)[rows])


def prepare_judging(data: Path, folder: Path, sizes: Sizes, workers: int) -> None:
    """Write what calibrates and what judges to ``folder``."""
    _, part = _part(data, "calibration", sizes)
    recipe = dataclasses.replace(read_recipe("default"), images=sizes.calibration)
    chosen = choose_images(part, recipe, SEED)
    np.save(folder / "calibration.npy", load_images(part, chosen, _PIXELS, SEED, workers))
    _, part = _part(data, "validation", sizes)
    held_out = load_probe(part, _PIXELS, images=32, views=1, seed=SEED, workers=workers)
    np.save(folder / "held-out.npy", held_out.flat())
    _, part = _part(data, "test", sizes)
    probe = load_probe(
        part, _PIXELS, images=sizes.test, views=sizes.views, seed=SEED, workers=workers
    )
    assert probe.labels is not None
    np.save(folder / "test.npy", probe.pixels)
    np.savez(folder / "test-labels.npz", labels=probe.labels, cells=probe.cells)


def _part(data: Path, name: str, sizes: Sizes) -> tuple[Dataset, Dataset]:
    """The data set and a part of it; only a calibration part has to be cut out."""
    dataset = open_dataset(str(data))
    splits = split_dataset(
        dataset, SplitSizes(validation=100, calibration=4 * sizes.calibration), seed=SEED
    )
    return dataset, splits.part(name, dataset)


def _pairs(dataset: Dataset, rows: NDArray[np.int64], workers: int) -> NDArray[np.uint8]:
    """[N, 1 + CORRUPTED, side, side, 3]: clean, then corruptions at random severities."""
    make = MakeVariants(_PIXELS, Cells(BENCHMARK15, SEVERITIES, seed=SEED + 1))
    count = len(BENCHMARK15) * len(SEVERITIES)
    tasks = []
    for row in rows.tolist():
        drawn = rng_for(SEED, 0, f"families {row}").choice(count, CORRUPTED, replace=False)
        tasks.append((row, (0, *(1 + drawn).tolist())))
    return np.stack(list(load_each(dataset, tasks, make, workers=workers, chunk=32)))


@dataclass(frozen=True)
class Training:
    """How a family is trained."""

    backbone: str
    epochs: int
    pairs: int  # of a clean and a corrupted view in a step
    lr: float
    weights: str | None = None  # the package whose ImageNet weights it starts from

    @property
    def preprocessing(self) -> Preprocessing:
        """The common pixels, normalized as the packaged weights expect; others learn anyway."""
        if self.weights is None:
            return _PIXELS
        return dataclasses.replace(_PIXELS, mean=(127.0,) * 3, std=(128.0,) * 3)


def initial_model(training: Training, classes: tuple[str, ...], config: TrainConfig) -> VQSA:
    """The backbone with ImageNet weights where a package has them, and a fresh head."""
    torch.manual_seed(SEED)
    backbone = create_backbone(training.backbone, (SIDE, SIDE))
    if training.weights is not None:
        load_packaged(backbone, training.weights)
    start = Start(backbone, training.preprocessing, training.weights is not None, "families")
    return start.model_for(classes, config)[0]


def load_packaged(backbone: torch.nn.Module, package: str) -> None:
    """Fill in a package's ImageNet weights; both list their tensors in the network's order."""
    module = importlib.import_module(package)
    (name,) = (name for name in vars(module) if name.endswith("ModelFile"))
    path = getattr(module, name).get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    theirs = [value for name, value in state.items() if not name.startswith("_fc.")]
    for (name, ours), found in zip(backbone.state_dict().items(), theirs, strict=True):
        if ours.shape != found.shape:
            raise SystemExit(f"{package}: {name} is {tuple(found.shape)}, not {tuple(ours.shape)}")
        ours.copy_(found)


def train(
    training: Training, folder: Path, out: Path, device: torch.device, seconds: float
) -> dict[str, float]:
    """Train a family for its epochs, or ``seconds`` if these end first; what it came to."""
    start = time.monotonic()
    images = torch.from_numpy(np.load(folder / "train.npy")).to(device)  # [N, variants, h, w, 3]
    targets = torch.from_numpy(np.load(folder / "train-labels.npy")).to(device)
    classes = tuple((folder / "classes.txt").read_text().split("\n"))
    config = TrainConfig(
        backbone=training.backbone,
        codebook_size=CODEWORDS,
        optimizer="adamw",
        lr=training.lr,
        weight_decay=0.05,
        batch_size=training.pairs,
        epochs=training.epochs,
    )
    model = initial_model(training, classes, config).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in the stubs
    run = _Run(model, config, training.preprocessing, images, targets)
    run.begun = time.monotonic()
    run.all_epochs(seconds)
    path = out / "model.safetensors"
    card = ModelCard(
        backbone=training.backbone,
        width=model.head.width,
        classes=classes,
        preprocessing=training.preprocessing,
        vqsa=config.vqsa(),
        training=TrainingProtocol(seen=BENCHMARK15, data="cifar10"),
    )
    save_checkpoint(path, model.float().eval(), card)
    return {
        "steps": run.step,
        "views": 2 * config.batch_size * run.step,
        "training_seconds": time.monotonic() - run.begun,
        "start_seconds": run.begun - start,
        "training_error": run.wrong_share,
        "codes_in_training": run.codes_used,
    }


class _Run:
    """A training in progress: pairs of a clean and a corrupted view, flipped and moved alike."""

    def __init__(
        self,
        model: VQSA,
        config: TrainConfig,
        preprocessing: Preprocessing,
        images: Tensor,
        targets: Tensor,
    ) -> None:
        self.model, self.config, self.images, self.targets = model, config, images, targets
        self.device = images.device
        self.learner = Learner(model, label_smoothing=0.0)
        self.optimizer = create_optimizer(model, config)
        self.generator = torch.Generator(self.device).manual_seed(SEED)
        self.mean = torch.tensor(preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocessing.std, device=self.device).view(1, 3, 1, 1)
        self.step, self.begun = 0, 0.0
        self.wrong_share, self.codes_used = 1.0, 0
        self.last_features: Tensor | None = None

    def all_epochs(self, seconds: float) -> None:
        """The learning rate falls with the steps or with the time, whichever is further on."""
        batches = len(self.images) // self.config.batch_size
        total = batches * self.config.epochs
        codebook = self.model.head.codebook
        assert codebook is not None
        quantizes, share = False, 0.0
        while share < 1:
            self.model.train()
            codebook.reset_usage()
            wrong = torch.zeros((), device=self.device)
            order = torch.randperm(len(self.images), generator=self.generator, device=self.device)
            done = 0
            for rows in order[: batches * self.config.batch_size].split(self.config.batch_size):
                share = max(self.step / total, (time.monotonic() - self.begun) / seconds)
                if share >= 1:
                    break
                if not quantizes and share >= _QUANTIZER_START:
                    codebook.initialize(self._features(), seed=SEED)
                    quantizes = True
                wrong += self._learn(rows, share, quantizes)
                done += len(rows)
            if not done:
                return
            self.wrong_share = float(wrong) / (2 * done)
            self.codes_used = int((codebook.usage > 0).sum())
            if quantizes and share < _LAST_RESET and self.last_features is not None:
                dead = codebook.usage < 1
                codebook.reset_dead(self.last_features.float(), seed=SEED + self.step)
                forget_rows(self.optimizer, codebook.embeddings, dead)

    def _learn(self, rows: Tensor, share: float, quantizes: bool) -> Tensor:
        rate = learning_rate(self.config.lr, round(1000 * share), 1000, self.config.warmup)
        set_learning_rate(self.optimizer, rate)
        with self._autocast():
            losses = self.learner(self._views(rows), self.targets[rows].repeat(2), True, quantizes)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.step += 1
        self.last_features = losses.features
        wrong: torch.Tensor = losses.wrong
        return wrong

    def _views(self, rows: Tensor) -> Tensor:
        """[2B, 3, h, w]: the images clean, then the same corrupted."""

        def draw(low: int, high: int, count: int = 1) -> Tensor:
            return torch.randint(low, high, (count,), generator=self.generator, device=self.device)

        variant = draw(1, self.images.shape[1], len(rows))
        flipped = draw(0, 2, len(rows)).bool()
        pairs = torch.stack([self.images[rows, 0], self.images[rows, variant]])
        pairs = torch.where(flipped.view(1, -1, 1, 1, 1), pairs.flip(3), pairs)
        pixels = pairs.flatten(0, 1).permute(0, 3, 1, 2).float()
        pixels = torch.nn.functional.pad(pixels, (_SHIFT,) * 4, mode="reflect")
        # One move a batch: slicing costs nothing, and batches differ enough.
        top, left = np.random.default_rng(self.step).integers(0, 2 * _SHIFT + 1, 2)
        pixels = pixels[:, :, top : top + SIDE, left : left + SIDE]
        # In this layout convolutions are faster, depthwise ones most of all.
        views = (pixels - self.mean) / self.std
        return views.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _features(self) -> Tensor:
        """Where the codewords are placed: some pairs' features."""
        self.model.eval()
        parts = []
        for rows in torch.arange(min(_PLACED, len(self.images)), device=self.device).split(256):
            with self._autocast():
                parts.append(self.model.backbone.pooled(self._views(rows)).float())
        self.model.train()
        return torch.cat(parts)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
