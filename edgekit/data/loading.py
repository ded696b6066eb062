"""Reads images in worker processes: in order, bounded in memory, the same for any worker count.

The unit of work is ``function(dataset, task)``, a pure function of its arguments; a task is an
index or another description of the work (an index with a corruption, an epoch, a seed). Randomness
comes from `rng_for`, never from a worker's own state, so it does not matter who computes a task.

Workers are started by a fork server, not forked from a process that may hold torch's threads and
locks. As with all of multiprocessing, ``function`` must be importable (no lambda), and a script
that loads with workers needs ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from edgekit.core.errors import UsageError
from edgekit.core.host import usable_threads
from edgekit.data.base import Dataset, IndexArray, Subset
from edgekit.data.decode import BadImage
from edgekit.data.pool import Pool

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class Skipped:
    """Collects unreadable images during training: pass it as ``on_bad``.

    Each is logged once, in however many epochs it occurs.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __call__(self, error: BadImage) -> None:
        """Record one bad image."""
        if str(error) not in self.messages:
            self.messages.append(str(error))
            _log.warning("left out: %s", error)

    @property
    def count(self) -> int:
        """How many different images were left out."""
        return len(self.messages)


def default_workers() -> int:
    """One worker per usable CPU, at most 8; none on a single CPU."""
    usable = usable_threads()
    return 0 if usable == 1 else min(8, usable)


def load_each(
    dataset: Dataset,
    tasks: Iterable[T],
    function: Callable[[Dataset, T], R],
    *,
    workers: int = 0,
    chunk: int = 8,
    on_bad: Callable[[BadImage], object] | None = None,
) -> Iterator[R]:
    """``function(dataset, task)`` for every task, in the order of the tasks.

    ``workers = 0`` computes in this process. Otherwise tasks travel in groups of ``chunk``, and
    about two groups per worker are computed ahead of the caller. A `BadImage` ends the loading,
    unless ``on_bad`` is given: it gets the error, and the task has no result.
    To load many times (every epoch), keep an `edgekit.data.pool.Pool` and call its ``map``.
    """
    with Pool(dataset, function, workers) as pool:
        yield from pool.map(tasks, chunk=chunk, on_bad=on_bad)


def batched(results: Iterable[R], size: int, *, drop_last: bool = False) -> Iterator[list[R]]:
    """Group results by ``size``; the last group may be smaller, or is dropped."""
    if size < 1:
        raise UsageError(f"a batch needs at least 1 image, not {size}")
    group: list[R] = []
    for result in results:
        group.append(result)
        if len(group) == size:
            yield group
            group = []
    if group and not drop_last:
        yield group


def without_bad(dataset: Dataset, *, workers: int = 0) -> tuple[Dataset, list[str]]:
    """The dataset without unreadable images, and the reason for each; reads every image."""
    bad: list[str] = []
    indices = range(len(dataset))
    readable = load_each(
        dataset, indices, _decodes, workers=workers, on_bad=lambda error: bad.append(str(error))
    )
    good = np.fromiter(readable, np.int64)
    if not bad:
        return dataset, []
    given = {
        name: np.flatnonzero(np.isin(good, rows)) for name, rows in dataset.given_splits.items()
    }
    return Subset(dataset, good, given), bad


def _decodes(dataset: Dataset, index: int) -> int:
    dataset.image(index)
    return index


def rng_for(seed: int, epoch: int, key: str) -> np.random.Generator:
    """A generator that depends on its arguments alone: one per image, epoch and purpose."""
    text = f"{seed}\n{epoch}\n{key}".encode("utf-8", "surrogateescape")
    words = np.frombuffer(hashlib.sha256(text).digest(), "<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


def epoch_order(count: int, seed: int, epoch: int) -> IndexArray:
    """A permutation of 0 to ``count`` - 1, a different one each epoch.

    Sorts the raw output of the bit generator, which NumPy promises never to change;
    it makes no such promise for `Generator.permutation`.
    """
    bits = rng_for(seed, epoch, "order").bit_generator.random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int64)
