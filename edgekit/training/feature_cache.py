"""Features of a frozen backbone, computed once per image and view, and stored on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

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
from edgekit.training.feature_engine import (
    FeatureEngine,
    OpenvinoEngine,
    TorchEngine,
    agree,
    translate,
)
from edgekit.training.feature_store import SHARD_ROWS, ArrayStore, Floats, fill_store, missing_rows
from edgekit.training.featurize import Featurize, ViewResults, Views, features_of
from edgekit.training.provenance import digest_of, feature_provenance, weights_hash
from edgekit.training.stop_signal import StopSignal
from edgekit.training.views import View, ViewLoader

_GROUP = 16  # views that go through the backbone together: they fit into a core's cache
_SMALL = 2000  # views that torch has computed before OpenVINO has read the network


class FrozenNetwork:
    """A backbone that does not learn, and what its features depend on."""

    def __init__(
        self,
        backbone: Backbone,
        preprocessing: Preprocessing,
        quantize: Quantize,
        device: torch.device,
    ) -> None:
        self.backbone, self.preprocessing, self.device = backbone, preprocessing, device
        self.torch = TorchEngine(backbone, quantize, device)
        self.identity = digest_of(
            {
                **feature_provenance(),
                "backbone": weights_hash(backbone),
                "backbone code": backbone.source,
                "preprocessing": preprocessing.fingerprint(),
                "quantize": quantize,
                "device": device.type,
            }
        )

    @cached_property
    def openvino(self) -> OpenvinoEngine | None:
        """The same in OpenVINO, if it can."""
        return translate(self.torch, self.preprocessing.size)


class FeatureCache:
    """Features of one dataset under one network, in folders named by what they depend on."""

    def __init__(
        self, folder: Path, dataset: Dataset, network: FrozenNetwork, workers: int
    ) -> None:
        self._folder, self._dataset, self._workers = folder, dataset, workers
        self._network = network
        self._load_views = ViewLoader(network.preprocessing)
        self._digests: dict[int, str] = {}

    def stores(
        self, view_lists: Sequence[Sequence[View]], title: str, console: Console, stop: StopSignal
    ) -> list[ArrayStore]:
        """A store for each list of single-corruption views; computes what is missing."""
        counts = [len(views) for views in view_lists]
        # By all views, not by those that are missing: a resumed run chooses as it would have.
        may_be_quick = self._network.device.type == "cpu" and sum(counts) >= _SMALL
        folders = [self._folder / self._key(views, may_be_quick) for views in view_lists]
        missing = [
            missing_rows(folder, count) for folder, count in zip(folders, counts, strict=True)
        ]
        if sum(missing):
            backbone = self._network.backbone
            was_training = backbone.training
            backbone.eval()
            quick = self._network.openvino if may_be_quick else None
            with ProgressBar(console, title, sum(counts), sum(counts) - sum(missing)) as progress:
                lists = list(zip(folders, view_lists, strict=True))
                try:
                    self._fill_all(lists, quick, progress, stop)
                except _EnginesDiffer:
                    console.warn("OpenVINO's features differ from torch's: torch computes them")
                    self._fill_all(lists, None, progress, stop)
            backbone.train(was_training)
        return [ArrayStore(folder, count) for folder, count in zip(folders, counts, strict=True)]

    def _fill_all(
        self,
        lists: Sequence[tuple[Path, Sequence[View]]],
        quick: OpenvinoEngine | None,
        progress: ProgressBar,
        stop: StopSignal,
    ) -> None:
        on_cpu = self._network.device.type == "cpu"
        engine: FeatureEngine | None = quick or (self._network.torch if on_cpu else None)
        with Pool(self._dataset, Featurize(self._load_views, engine), self._workers) as pool:
            for folder, views in lists:
                if missing_rows(folder, len(views)):
                    self._fill(folder, views, pool, progress, stop, checked=quick is not None)

    def _fill(
        self,
        folder: Path,
        views: Sequence[View],
        pool: Pool[Views, Floats | ViewResults | None],
        progress: ProgressBar,
        stop: StopSignal,
        *,
        checked: bool,  # one group of each shard is computed by torch as well
    ) -> None:
        def compute(start: int, end: int) -> Floats:
            groups = [tuple(group) for group in batched(views[start:end], _GROUP)]
            due = start // SHARD_ROWS % len(groups) if checked else -1
            parts: list[tuple[Floats | None, int]] = []
            for number, (group, result) in enumerate(
                zip(groups, pool.map(groups, chunk=1), strict=True)
            ):
                if stop.requested:
                    raise Interrupted("interrupted: run the same command to resume")
                if isinstance(result, list):
                    result = features_of(result, self._network.preprocessing, self._network.torch)
                elif number == due and result is not None:
                    self._check(group, result)
                parts.append((result, len(group)))
                progress.advance(len(group))
            return _stack(parts, self._dataset.name)

        fill_store(folder, len(views), compute)

    def _check(self, group: Views, quick: Floats) -> None:
        trusted = Featurize(self._load_views, self._network.torch)(self._dataset, group)
        readable = ~np.isnan(quick.reshape(len(quick), -1)).all(axis=1)
        if not isinstance(trusted, np.ndarray) or not agree(trusted[readable], quick[readable]):
            raise _EnginesDiffer

    def _key(self, views: Sequence[View], may_be_quick: bool) -> str:
        total = hashlib.sha256(self._network.identity.encode())
        if may_be_quick:
            total.update(b"openvino, if equal\n")
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


class _EnginesDiffer(Exception):
    """OpenVINO's features are not torch's."""


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
