"""Features of a frozen backbone, computed once per image and view, and stored on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, Interrupted
from edgekit.core.progress import ProgressBar
from edgekit.data.base import Dataset
from edgekit.data.decode import BadImage
from edgekit.data.loading import batched
from edgekit.data.pool import Pool
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import Quantize
from edgekit.training.feature_store import ArrayStore, Floats, fill_store, missing_rows
from edgekit.training.provenance import digest_of, feature_provenance, weights_hash
from edgekit.training.stop_signal import StopSignal
from edgekit.training.views import LoadedViews, Unreadable, View, ViewLoader

_GROUP = 16  # views that go through the backbone together: they fit into a core's cache

Views = tuple[View, ...]
ViewResults = list[LoadedViews | Unreadable]


@dataclass(frozen=True, eq=False)
class Featurize:
    """What a worker does with a group of views: computes features, or just loads the pixels.

    On a CPU the workers run the backbone, one thread each. That scales better than many threads
    in one process, which spin while they wait, and rounds the same for any number of either.
    """

    load_views: ViewLoader
    backbone: Backbone | None  # None leaves the backbone to the caller, who has a GPU
    quantize: Quantize

    def __call__(self, dataset: Dataset, views: Views) -> Floats | ViewResults | None:
        """Features [views, ...], or what `features_of` needs to compute them."""
        results = [self.load_views(dataset, view) for view in views]
        if self.backbone is None:
            return results
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            device = torch.device("cpu")
            return features_of(
                results, self.load_views.preprocessing, self.backbone, self.quantize, device
            )
        finally:
            torch.set_num_threads(threads)


@torch.inference_mode()
def features_of(
    results: ViewResults,
    preprocessing: Preprocessing,
    backbone: Backbone,
    quantize: Quantize,
    device: torch.device,
) -> Floats | None:
    """Features of a group, NaN for unreadable images; None if all are."""
    good = [row for row, result in enumerate(results) if isinstance(result, LoadedViews)]
    if not good:
        return None
    pixels = np.stack([result.images[0] for result in results if isinstance(result, LoadedViews)])
    images = torch.from_numpy(preprocessing.normalize(pixels)).to(device)
    features: Tensor = backbone.features(
        images.contiguous(memory_format=torch.channels_last), quantize
    )
    array: Floats = features.float().cpu().numpy()
    rows = np.full((len(results), *array.shape[1:]), np.nan, np.float32)
    rows[good] = array
    return rows


class FeatureCache:
    """Features of one dataset under one backbone, in folders named by what they depend on."""

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        backbone: Backbone,
        preprocessing: Preprocessing,
        quantize: Quantize,
        device: torch.device,
        workers: int,
    ) -> None:
        self._folder, self._dataset, self._backbone = folder, dataset, backbone
        self._preprocessing, self._quantize = preprocessing, quantize
        self._device, self._workers = device, workers
        self._identity = digest_of(
            {
                **feature_provenance(),
                "backbone": weights_hash(backbone),
                "preprocessing": preprocessing.fingerprint(),
                "quantize": quantize,
                "device": device.type,
            }
        )
        self._digests: dict[int, str] = {}

    def stores(
        self, view_lists: Sequence[Sequence[View]], title: str, console: Console, stop: StopSignal
    ) -> list[ArrayStore]:
        """A store for each list of single-corruption views; computes what is missing."""
        folders = [self._folder / self._key(views) for views in view_lists]
        counts = [len(views) for views in view_lists]
        missing = [
            missing_rows(folder, count) for folder, count in zip(folders, counts, strict=True)
        ]
        if sum(missing):
            was_training = self._backbone.training
            self._backbone.eval()
            on_cpu = self._device.type == "cpu"
            work = Featurize(
                ViewLoader(self._preprocessing), self._backbone if on_cpu else None, self._quantize
            )
            with (
                Pool(self._dataset, work, self._workers) as pool,
                ProgressBar(console, title, sum(counts), sum(counts) - sum(missing)) as progress,
            ):
                for folder, views, missing_count in zip(folders, view_lists, missing, strict=True):
                    if missing_count:
                        self._fill(folder, views, pool, progress, stop)
            self._backbone.train(was_training)
        return [ArrayStore(folder, count) for folder, count in zip(folders, counts, strict=True)]

    def _fill(
        self,
        folder: Path,
        views: Sequence[View],
        pool: Pool[Views, Floats | ViewResults | None],
        progress: ProgressBar,
        stop: StopSignal,
    ) -> None:
        def compute(start: int, end: int) -> Floats:
            groups = [tuple(group) for group in batched(views[start:end], _GROUP)]
            parts: list[tuple[Floats | None, int]] = []
            for group, result in zip(groups, pool.map(groups, chunk=1), strict=True):
                if stop.requested:
                    raise Interrupted("interrupted: run the same command to resume")
                if isinstance(result, list):
                    result = features_of(
                        result, self._preprocessing, self._backbone, self._quantize, self._device
                    )
                parts.append((result, len(group)))
                progress.advance(len(group))
            return _stack(parts, self._dataset.name)

        fill_store(folder, len(views), compute)

    def _key(self, views: Sequence[View]) -> str:
        total = hashlib.sha256(self._identity.encode())
        for view in views:
            (corruption,) = view.corruptions
            text = f"{self._digest(view.index)} {corruption} {view.noise_seed}"
            if corruption.name:  # the key seeds the corruption; a clean image does not need it
                text += f" {self._dataset.key(view.index)}"
            total.update(text.encode("utf-8", "surrogateescape") + b"\n")
        return total.hexdigest()[:32]

    def _digest(self, index: int) -> str:
        if index not in self._digests:
            try:
                self._digests[index] = self._dataset.digest(index)
            except BadImage as error:
                self._digests[index] = f"bad: {error}"
        return self._digests[index]


def usable_rows(stores: Sequence[ArrayStore]) -> NDArray[np.int64]:
    """The rows that hold an image in every store."""
    bad = np.zeros(len(stores[0]), bool)
    for store in stores:
        bad |= np.isnan(store.first_values())
    return np.flatnonzero(~bad)


def _stack(parts: list[tuple[Floats | None, int]], name: str) -> Floats:
    shapes = [rows.shape[1:] for rows, _ in parts if rows is not None]
    if not shapes:
        count = sum(count for _, count in parts)
        raise EdgekitError(f"{name}: none of {count} consecutive images can be read")
    blank = [np.full((count, *shapes[0]), np.nan, np.float32) for _, count in parts]
    return np.concatenate([blank[i] if rows is None else rows for i, (rows, _) in enumerate(parts)])
