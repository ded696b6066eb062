"""Runs models over images in a seeded order; no model sees a variant of an image twice.

Worker processes corrupt the next images while the models run on this one. Answers are cached on
disk under a hash of the model and the image, variant by variant: an interrupted sweep resumes, a
second target costs only its own inferences, and added corruptions cost only themselves.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import MakeVariants, Task
from edgekit.data.loading import epoch_order
from edgekit.data.pool import Pool
from edgekit.parity.answer_cache import (
    DEFAULT_BYTES,
    AnswerCache,
    CachedAnswers,
    Outputs,
    Shelf,
    condense,
    join_outputs,
    take_outputs,
)
from edgekit.parity.predictors import Predictor

_Shelves = tuple[Shelf, ...]  # one of each model


class ImagePair(NamedTuple):
    """Two models' outputs for some variants of one image, the clean one first."""

    label: int
    numbers: tuple[int, ...]  # which variants, ascending; 0 is clean
    reference: Outputs
    candidate: Outputs
    computed: int  # inferences done now, not found in the cache
    row: int  # of the image in the data


class ImageAnswers(NamedTuple):
    """All models' outputs for some variants of one image, the clean one first."""

    label: int
    numbers: tuple[int, ...]  # which variants, ascending; 0 is clean
    outputs: tuple[Outputs, ...]
    computed: int  # inferences done now, not found in the cache
    row: int  # of the image in the data

    def pair(self, candidate: int) -> ImagePair:
        """The first model's outputs and another's; inferences are counted here alone."""
        outputs = self.outputs[0], self.outputs[candidate]
        return ImagePair(self.label, self.numbers, *outputs, self.computed, self.row)


@dataclass(frozen=True)
class _Planned:
    """The next image, its cached answers, and the variants still to compute."""

    index: int
    digest: str
    numbers: tuple[int, ...]
    labels: list[str]  # of these variants
    known: tuple[CachedAnswers, ...]
    missing: tuple[int, ...]  # indices into `numbers`


@dataclass(frozen=True)
class Lineup:
    """Models that answer the same images of ``dataset``, at most ``images`` of it (0: all)."""

    dataset: Dataset
    make: MakeVariants
    models: tuple[Predictor, ...]
    cache: Path
    images: int
    workers: int
    seed: int = 0
    cache_bytes: int = DEFAULT_BYTES

    @property
    def available(self) -> int:
        """How many images there are to evaluate."""
        return min(len(self.dataset), self.images or len(self.dataset))

    @contextmanager
    def hold(self) -> Iterator[_Shelves]:
        """Keep other processes from dropping the cached answers that this sweep reads."""
        cache = AnswerCache(self.cache, self.cache_bytes)
        pixels = self.make.fingerprint()
        with ExitStack() as stack:
            yield tuple(
                stack.enter_context(cache.shelf(f"{model.key}\n{pixels}")) for model in self.models
            )

    def answers(self, levels: int = 0) -> Iterator[ImageAnswers]:
        """Image after image in the seeded order; close the iterator to stop the sweep.

        Each goes through ``levels`` severities of every corruption (see `Cells.sample`), 0 for
        all of them.
        """
        with self.hold() as shelves:
            planned = self._plan(shelves, levels)
            for one in planned:
                if one.missing:  # only now are workers worth starting
                    yield from self._with_workers(shelves, itertools.chain([one], planned))
                    return
                yield self._answers(shelves, one, None)

    def _with_workers(
        self, shelves: _Shelves, planned: Iterator[_Planned]
    ) -> Iterator[ImageAnswers]:
        ahead: deque[_Planned] = deque()

        def tasks() -> Iterator[Task]:
            for one in planned:
                ahead.append(one)
                # Cached images are queued too, as empty tasks: that bounds how far this runs ahead.
                yield one.index, tuple(one.numbers[place] for place in one.missing)

        with Pool(self.dataset, self.make, self.workers) as pool:
            for pixels in pool.map(tasks(), chunk=1):
                yield self._answers(shelves, ahead.popleft(), pixels)

    def _plan(self, shelves: _Shelves, levels: int) -> Iterator[_Planned]:
        order = epoch_order(len(self.dataset), self.seed, 0)[: self.available]
        for index in order.tolist():
            digest = self.dataset.digest(index)
            numbers = self.make.cells.sample(digest, levels)
            labels = self.make.labels(self.dataset, index, numbers)
            known = tuple(shelf.read(digest) for shelf in shelves)
            everywhere = set.intersection(*(set(cached.labels) for cached in known))
            missing = tuple(place for place, label in enumerate(labels) if label not in everywhere)
            yield _Planned(index, digest, numbers, labels, known, missing)

    def _answers(
        self, shelves: _Shelves, one: _Planned, pixels: NDArray[np.uint8] | None
    ) -> ImageAnswers:
        outputs: dict[str, Outputs] = {}  # by key: copies of one file answer once
        computed = 0
        for model, shelf, known in zip(self.models, shelves, one.known, strict=True):
            if model.key not in outputs:
                outputs[model.key], new = _outputs(model, shelf, one, known, pixels)
                computed += new
        label = self.dataset.label(one.index)
        answers = tuple(outputs[model.key] for model in self.models)
        return ImageAnswers(label, one.numbers, answers, computed, one.index)


@dataclass(frozen=True)
class Sweep:
    """A comparison of two models over ``dataset``, at most ``images`` of it (0: all)."""

    dataset: Dataset
    make: MakeVariants
    reference: Predictor
    candidate: Predictor
    cache: Path
    images: int
    workers: int
    seed: int = 0
    cache_bytes: int = DEFAULT_BYTES

    @property
    def lineup(self) -> Lineup:
        """Both models, the reference first."""
        return Lineup(
            self.dataset,
            self.make,
            (self.reference, self.candidate),
            self.cache,
            self.images,
            self.workers,
            self.seed,
            self.cache_bytes,
        )

    @property
    def available(self) -> int:
        """How many images there are to evaluate."""
        return self.lineup.available

    def hold(self) -> AbstractContextManager[_Shelves]:
        """Keep other processes from dropping the cached answers that this sweep reads."""
        return self.lineup.hold()

    def pairs(self, levels: int = 0) -> Iterator[ImagePair]:
        """As `Lineup.answers`, of the two."""
        answers = cast("Generator[ImageAnswers, None, None]", self.lineup.answers(levels))
        with closing(answers):  # as soon as this iterator is
            for image in answers:
                yield image.pair(1)


def _outputs(
    model: Predictor,
    shelf: Shelf,
    one: _Planned,
    known: CachedAnswers,
    pixels: NDArray[np.uint8] | None,
) -> tuple[Outputs, int]:
    """A model's outputs for the planned variants of an image, and the inferences that took."""
    labels, outputs = known
    cached = set(labels)
    new = [place for place in one.missing if one.labels[place] not in cached]
    if new:
        assert pixels is not None
        answers = model.run(pixels[[one.missing.index(place) for place in new]])
        labels = labels + [one.labels[place] for place in new]
        outputs = join_outputs(outputs, condense(answers))
        shelf.write(one.digest, CachedAnswers(labels, outputs))
    assert outputs is not None
    row = {label: place for place, label in enumerate(labels)}
    return take_outputs(outputs, [row[label] for label in one.labels]), len(new)
