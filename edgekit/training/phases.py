"""The phases of a run: the head on cached features, or the whole network on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from edgekit.core.console import Console
from edgekit.core.errors import Interrupted
from edgekit.core.progress import ProgressBar
from edgekit.data.base import Dataset, IndexArray, labels, subset
from edgekit.data.decode import BadImage
from edgekit.data.loading import Skipped
from edgekit.data.pool import Pool
from edgekit.data.splits import Splits
from edgekit.data.transforms import Preprocessing
from edgekit.model.vqsa import VQSA
from edgekit.training.batches import CachedSource, ImageSource
from edgekit.training.config import TrainConfig
from edgekit.training.corruption_schedule import CLEAN, draw, noise_seed
from edgekit.training.distributed import World
from edgekit.training.evaluation import evaluate_features, evaluation_views
from edgekit.training.feature_cache import FeatureCache, FrozenNetwork, usable_rows
from edgekit.training.feature_store import ArrayStore
from edgekit.training.loop import Phase
from edgekit.training.results import Evaluation
from edgekit.training.stop_signal import StopSignal
from edgekit.training.validation import Group, evaluate_images, image_groups
from edgekit.training.views import LoadedViews, Unreadable, View, ViewLoader


@dataclass(frozen=True)
class Material:
    """The images of a run, and what it takes to work on them."""

    config: TrainConfig
    dataset: Dataset
    splits: Splits
    train: IndexArray  # the images of the split that are used; likewise for validation
    validation: IndexArray
    preprocessing: Preprocessing
    corruptions: tuple[str, ...]  # in training
    validation_corruptions: tuple[str, ...]
    workers: int
    device: torch.device
    world: World
    console: Console
    stop: StopSignal
    skipped: Skipped


def make_phases(material: Material, model: VQSA, freezes: bool) -> tuple[Phase, ...]:
    """The phases that the settings ask for, in order."""
    config = material.config
    if not freezes:
        return (_ImagePhase(material).phase("train", config.epochs, config.lr, True),)
    phases = [_CachedPhase(material, model).phase()]
    if config.finetune_epochs:
        # Batches are few and small: the trained backbone's own statistics are better.
        last = _ImagePhase(material)
        phases.append(last.phase("fine-tune", config.finetune_epochs, config.finetune_lr, False))
    return tuple(phases)


class _CachedPhase:
    """Trains the head on features that are computed before the first epoch."""

    def __init__(self, material: Material, model: VQSA) -> None:
        m = self._material = material
        self._network = FrozenNetwork(model.backbone, m.preprocessing, m.config.quantize, m.device)
        self._stores: dict[str, ArrayStore] = {}

    def phase(self) -> Phase:
        config = self._material.config
        return Phase(
            "train head", config.epochs, config.lr, False, False, self._open, self._evaluate
        )

    @contextmanager
    def _open(self) -> Iterator[CachedSource]:
        m = self._material
        train_set = subset(m.dataset, m.train)
        rows = range(len(train_set))
        view_lists = [[View(row, (CLEAN,)) for row in rows]]
        if m.config.pairing != "clean":
            view_lists += [self._variant(train_set, number) for number in range(m.config.variants)]
        stores = self._cached(train_set, view_lists, "features")
        evaluated = evaluation_views(np.arange(len(m.validation)), m.validation_corruptions)
        held_out = subset(m.dataset, m.validation)
        held_out_stores = self._cached(held_out, list(evaluated.values()), "validation features")
        self._stores = dict(zip(evaluated, held_out_stores, strict=True))
        usable = usable_rows(stores)
        if len(usable) < len(train_set):
            for row in np.setdiff1d(rows, usable).tolist():
                m.skipped(BadImage(f"{m.dataset.name}: image {train_set.key(row)} is unreadable"))
        options = m.config.batches()
        yield CachedSource(
            train_set, usable, stores[0], stores[1:], options, m.corruptions, m.world
        )

    def _variant(self, train_set: Dataset, number: int) -> list[View]:
        m, seed = self._material, self._material.config.data_seed
        return [
            View(
                row,
                (draw(m.corruptions, seed, number, train_set.key(row)),),
                noise_seed(seed, number),
            )
            for row in range(len(train_set))
        ]

    def _cached(
        self, dataset: Dataset, view_lists: list[list[View]], title: str
    ) -> list[ArrayStore]:
        m = self._material
        cache = FeatureCache(
            m.config.cache or m.config.out / "features", dataset, self._network, m.workers
        )
        if m.world.local_rank != 0:  # one process per machine computes, the others wait
            m.world.wait()
        stores = cache.stores(view_lists, title, m.console, m.stop)
        if m.world.local_rank == 0:
            m.world.wait()
        return stores

    def _evaluate(self, models: Sequence[VQSA]) -> list[Evaluation]:
        m = self._material
        truth = labels(m.dataset, m.validation)
        rows = usable_rows(list(self._stores.values()))
        codebook = models[0].head.codebook
        size = None if codebook is None else len(codebook.usage)
        with torch.inference_mode():
            return [
                evaluate_features(model.head, self._stores, truth, rows, size, m.device, m.world)
                for model in models
            ]


class _ImagePhase:
    """Trains on images, as the workers deliver them."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._pool: Pool[View, LoadedViews | Unreadable] | None = None

    def phase(self, name: str, epochs: int, lr: float, learns_batch_norm: bool) -> Phase:
        return Phase(name, epochs, lr, True, learns_batch_norm, self._open, self._evaluate)

    @contextmanager
    def _open(self) -> Iterator[ImageSource]:
        m = self._material
        load_views = ViewLoader(m.preprocessing, m.config.augment, m.config.data_seed)
        with Pool(m.dataset, load_views, m.workers) as self._pool:
            yield ImageSource(
                m.dataset,
                m.train,
                self._pool,
                m.preprocessing,
                m.config.batches(),
                m.corruptions,
                m.world,
                m.skipped,
            )

    def _evaluate(self, models: Sequence[VQSA]) -> list[Evaluation]:
        m, corruptions = self._material, self._material.validation_corruptions
        assert self._pool is not None
        groups = image_groups(m.validation, corruptions, m.preprocessing, self._pool, m.world)
        if len(models) > 1:
            groups = self._shown(groups, f"validating {len(models)} variants")
        return evaluate_images(models, groups, corruptions, m.device, m.world)

    def _shown(self, groups: Iterator[Group], title: str) -> Iterator[Group]:
        """What takes long shows its progress, and can be interrupted."""
        m = self._material
        count = len(m.validation[m.world.share(len(m.validation))])
        with ProgressBar(m.console, title, count) as bar:
            for group in groups:
                if m.stop.requested:
                    raise Interrupted("interrupted: run the same command to resume")
                yield group
                bar.advance(len(group.labels))
