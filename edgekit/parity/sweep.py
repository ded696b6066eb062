"""Runs models over images in a seeded order; no model sees a variant of an image twice.

Answers are cached on disk under a hash of the model and the image, variant by variant: an
interrupted sweep resumes, a second target costs only its own inferences, and added corruptions cost
only themselves. Who computes them is an `Executor`'s business.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

from edgekit.core.threads import in_order
from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import MakeVariants
from edgekit.data.loading import epoch_order
from edgekit.parity.answer_cache import (
    DEFAULT_BYTES,
    AnswerCache,
    CachedAnswers,
    Outputs,
    Shelf,
    join_outputs,
    take_outputs,
)
from edgekit.parity.executors import LOCAL, Executor, Job, Shard, ShardOutputs
from edgekit.parity.predictors import Predictor

_READ_AT_ONCE: Final = 8
_Shelves = dict[str, Shelf]  # by the key of the model


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
    """The next image, and what each model is known to answer."""

    index: int
    digest: str
    numbers: tuple[int, ...]
    labels: list[str]  # of these variants
    known: dict[str, CachedAnswers]  # by the model's key: copies of one file answer once

    def shard(self, place: int) -> Shard:
        """What is still to be answered."""
        new = [self._new(known) for known in self.known.values()]
        missing = sorted(set().union(*new))
        row = {number: row for row, number in enumerate(missing)}
        rows = tuple(tuple(row[number] for number in numbers) for numbers in new)
        return Shard(place, self.index, tuple(self.numbers[at] for at in missing), rows)

    def with_answers(self, new: ShardOutputs) -> Iterator[tuple[str, CachedAnswers]]:
        """The models that answered, by key, and all that is known of each now."""
        for (key, known), outputs in zip(self.known.items(), new, strict=True):
            if outputs is not None:
                labels = known.labels + [self.labels[at] for at in self._new(known)]
                yield key, CachedAnswers(labels, join_outputs(known.outputs, outputs))

    def outputs(self, key: str) -> Outputs:
        """A model's outputs for the planned variants, all of which it has answered."""
        labels, outputs = self.known[key]
        assert outputs is not None
        row = {label: place for place, label in enumerate(labels)}
        return take_outputs(outputs, [row[label] for label in self.labels])

    def _new(self, known: CachedAnswers) -> list[int]:
        """Which of the variants a model has not answered."""
        there = set(known.labels)
        return [place for place, label in enumerate(self.labels) if label not in there]


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
    executor: Executor = LOCAL

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
            yield {
                key: stack.enter_context(cache.shelf(f"{key}\n{pixels}")) for key in self._by_key
            }

    def answers(self, levels: int = 0) -> Iterator[ImageAnswers]:
        """Image after image in the seeded order; close the iterator to stop the sweep.

        Each goes through ``levels`` severities of every corruption (see `Cells.sample`), 0 for
        all of them.
        """
        with self.hold() as shelves:
            planned = self._plan(shelves, levels)
            for one in planned:
                if one.shard(0).numbers:  # only now are workers worth starting
                    yield from self._execute(shelves, itertools.chain([one], planned))
                    return
                yield self._answers(one, 0)

    def _execute(self, shelves: _Shelves, planned: Iterator[_Planned]) -> Iterator[ImageAnswers]:
        ahead: dict[int, _Planned] = {}  # by place

        def shards() -> Iterator[Shard]:
            for place, one in enumerate(planned):
                ahead[place] = one
                yield one.shard(place)

        def arrived(shard: Shard, new: ShardOutputs) -> None:
            one = ahead[shard.place]
            for key, known in list(one.with_answers(new)):
                one.known[key] = known
                shelves[key].write(one.digest, known)  # at once: it may not be its turn for long

        job = Job(self.dataset, self.make, tuple(self._by_key.values()), self.workers)
        with closing(self.executor.run(job, shards(), arrived)) as done:
            for shard in done:
                yield self._answers(ahead.pop(shard.place), sum(map(len, shard.rows)))

    def _plan(self, shelves: _Shelves, levels: int) -> Iterator[_Planned]:
        order = epoch_order(len(self.dataset), self.seed, 0)[: self.available].tolist()
        # Several at once: the images may be far away.
        digests = in_order(self.dataset.digest, order, _READ_AT_ONCE, "reading an image")
        for index, digest in zip(order, digests, strict=True):
            numbers = self.make.cells.sample(digest, levels)
            labels = self.make.labels(self.dataset, index, numbers)
            known = {key: shelf.read(digest) for key, shelf in shelves.items()}
            yield _Planned(index, digest, numbers, labels, known)

    def _answers(self, one: _Planned, computed: int) -> ImageAnswers:
        outputs = {key: one.outputs(key) for key in one.known}
        answers = tuple(outputs[model.key] for model in self.models)
        label = self.dataset.label(one.index)
        return ImageAnswers(label, one.numbers, answers, computed, one.index)

    @property
    def _by_key(self) -> dict[str, Predictor]:
        found: dict[str, Predictor] = {}
        for model in self.models:
            found.setdefault(model.key, model)  # the first of several copies answers
        return found


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
    executor: Executor = LOCAL

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
            self.executor,
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
