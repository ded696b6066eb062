"""Where batches come from: cached features of a frozen backbone, or images.

Both cut the same shuffled order of images into global batches and give each process a contiguous
part. A paired image takes two adjacent rows, clean first, so the rows of all processes put
together are the rows that a single process would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.base import Dataset, IndexArray
from edgekit.data.decode import BadImage
from edgekit.data.loading import Skipped, batched, epoch_order
from edgekit.data.pool import Pool
from edgekit.data.transforms import Preprocessing
from edgekit.model.vqsa import VQSA
from edgekit.training.config import BatchOptions, Pairing
from edgekit.training.corruption_schedule import CLEAN, drawn_clean, noise_seed, training_views
from edgekit.training.distributed import World
from edgekit.training.feature_store import ArrayStore, Floats
from edgekit.training.views import LoadedViews, Unreadable, View

_SAMPLE = 4096  # the codebook starts from the features of at least this many images
_SAMPLED_VECTORS = 1 << 16  # and from at most this many of their vectors


class Batch(NamedTuple):
    """This process's part of one global batch."""

    inputs: Tensor  # features or normalized images, one row per view
    labels: Tensor
    names: list[str]  # of the images


class Source(Protocol):
    """Batches of one epoch, and features to start a codebook from."""

    are_images: bool

    def batches_per_epoch(self) -> int:
        """How many there are; images that do not fill a last batch are left out."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on."""

    def sample(self, model: VQSA, device: torch.device) -> Tensor:
        """Features [M, D], the same in every process."""


@dataclass(frozen=True)
class Order:
    """How images become batches."""

    images: int
    batch_size: int
    seed: int
    world: World

    def __post_init__(self) -> None:
        """Check that a batch has an image for every process."""
        if min(self.batch_size, self.images) < self.world.size:
            raise UsageError(
                f"a batch of {min(self.batch_size, self.images)} images cannot be shared by "
                f"{self.world.size} processes: raise batch_size"
            )

    def count(self) -> int:
        """Batches per epoch; a set smaller than a batch is one batch."""
        return max(1, self.images // self.batch_size)

    def parts(self, epoch: int, start: int) -> list[IndexArray]:
        """The images in this process's part of each batch."""
        order = epoch_order(self.images, self.seed, epoch)
        chunks = [
            order[batch * self.batch_size : (batch + 1) * self.batch_size]
            for batch in range(start, self.count())
        ]
        return [chunk[self.world.share(len(chunk))] for chunk in chunks]


class CachedSource:
    """Batches of cached features: ``clean``, and ``variants`` that take turns by epoch."""

    are_images = False

    def __init__(
        self,
        dataset: Dataset,
        rows: IndexArray,
        clean: ArrayStore,
        variants: Sequence[ArrayStore],
        options: BatchOptions,
        corruptions: Sequence[str],
        world: World,
    ) -> None:
        self._dataset, self._rows = dataset, rows
        self._clean, self._variants = clean, list(variants)
        self._pairing: Pairing = options.pairing
        self._corruptions, self._seed = corruptions, options.data_seed
        self._order = Order(len(rows), options.batch_size, options.seed, world)
        self._labels = np.array([dataset.label(int(row)) for row in rows], np.int64)

    def batches_per_epoch(self) -> int:
        """See `Source`."""
        return self._order.count()

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """See `Source`."""
        for part in self._order.parts(epoch, start):
            rows = self._rows[part]
            features = torch.from_numpy(self._features(rows, epoch))
            labels = torch.from_numpy(self._labels[part])
            yield Batch(
                features.flatten(0, 1),
                labels.repeat_interleave(features.shape[1]),
                [self._dataset.key(int(row)) for row in rows],
            )

    def sample(self, model: VQSA, device: torch.device) -> Tensor:
        """See `Source`."""
        count = max(_SAMPLE, 8 * model.config.codebook_size)
        rows = self._rows[epoch_order(len(self._rows), 0, 0)[:count]]
        features = torch.from_numpy(self._features(rows, 0)).to(device)
        return _vectors(features.flatten(0, 1))

    def _features(self, rows: IndexArray, epoch: int) -> Floats:
        """The features of an epoch: [M, views, ...]."""
        if self._pairing == "clean":
            return self._clean.rows(rows)[:, None]
        corrupted = self._variants[epoch % len(self._variants)].rows(rows)
        clean = self._clean.rows(rows)
        if self._pairing == "paired":
            return np.stack([clean, corrupted], axis=1)
        stay_clean = [
            drawn_clean(self._corruptions, self._seed, epoch, self._dataset.key(int(row)))
            for row in rows
        ]
        corrupted[stay_clean] = clean[stay_clean]
        return corrupted[:, None]


class ImageSource:
    """Batches of images, loaded and corrupted by worker processes as they are needed."""

    are_images = True

    def __init__(
        self,
        dataset: Dataset,
        indices: IndexArray,
        pool: Pool[View, LoadedViews | Unreadable],
        preprocessing: Preprocessing,
        options: BatchOptions,
        corruptions: Sequence[str],
        world: World,
        skipped: Skipped,
    ) -> None:
        self._dataset, self._indices = dataset, indices
        self._pool, self._preprocessing = pool, preprocessing
        self._pairing: Pairing = options.pairing
        self._corruptions, self._seed, self._skipped = corruptions, options.data_seed, skipped
        self._order = Order(len(indices), options.batch_size, options.seed, world)

    def batches_per_epoch(self) -> int:
        """See `Source`."""
        return self._order.count()

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """See `Source`."""
        parts = self._order.parts(epoch, start)
        views = (
            self._view(index, epoch) for part in parts for index in self._indices[part].tolist()
        )
        results = self._pool.map(views)
        for part in parts:
            group = [next(results) for _ in part]
            good = self._good(group)
            if not good:
                raise EdgekitError(
                    f"none of the {len(part)} images in a batch can be read, such as "
                    f"{self._dataset.key(int(self._indices[part[0]]))}: check the data"
                )
            pixels = np.concatenate([loaded.images for loaded in good])
            labels = [loaded.label for loaded in good for _ in loaded.images]
            yield Batch(
                torch.from_numpy(self._preprocessing.normalize(pixels)),
                torch.tensor(labels),
                [self._dataset.key(loaded.index) for loaded in good],
            )
        for _ in results:  # exhausts the iterator, so that the pool can be used again
            pass

    @torch.no_grad()
    def sample(self, model: VQSA, device: torch.device) -> Tensor:
        """See `Source`."""
        count = max(_SAMPLE, 8 * model.config.codebook_size)
        order = self._indices[epoch_order(len(self._indices), 0, 0)[:count]].tolist()
        was_training = model.training
        model.eval()
        parts = []
        for group in batched(self._pool.map([self._view(index, 0) for index in order]), 64):
            good = self._good(group)
            if good:
                pixels = np.concatenate([loaded.images for loaded in good])
                images = torch.from_numpy(self._preprocessing.normalize(pixels)).to(device)
                parts.append(model.backbone.features(images, model.config.quantize).float())
        model.train(was_training)
        return _vectors(torch.cat(parts))

    def _view(self, index: int, epoch: int) -> View:
        key = self._dataset.key(index)
        views = training_views(self._pairing, self._corruptions, self._seed, epoch, key)
        noise = noise_seed(self._seed, epoch) if views != (CLEAN,) else 0
        return View(index, views, noise, augment_epoch=epoch)

    def _good(self, group: Sequence[LoadedViews | Unreadable]) -> list[LoadedViews]:
        good = []
        for result in group:
            if isinstance(result, Unreadable):
                self._skipped(BadImage(result.message))
            else:
                good.append(result)
        return good


def _vectors(features: Tensor) -> Tensor:
    """[M, D] or [M, P, D] as a list of vectors [K, D]; evenly spaced ones if there are too many."""
    vectors = features.flatten(0, -2)
    return vectors[:: -(-len(vectors) // _SAMPLED_VECTORS)]
