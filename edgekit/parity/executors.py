"""Who answers the images of a sweep: this process with its loading workers, or others.

A sweep hands an executor `Shard` after shard and gets each image's answers back, whoever gave them.
Which images, which variants, their order and when to stop stay the sweep's own: no executor can
change a result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import MakeVariants, Task
from edgekit.data.pool import Pool
from edgekit.parity.answer_cache import Outputs, condense
from edgekit.parity.predictors import Predictor

ShardOutputs: TypeAlias = tuple[Outputs | None, ...]
"""The outputs of each model of a `Job`; None where it had nothing to answer."""
Arrived: TypeAlias = Callable[["Shard", ShardOutputs], None]


class Shard(NamedTuple):
    """What is still to be answered of one image; nothing, if ``numbers`` is empty."""

    place: int  # in the sweep's order, counted from 0
    image: int  # of the data set
    numbers: tuple[int, ...]  # the variants to make
    rows: tuple[tuple[int, ...], ...]  # which of `numbers` each model answers


@dataclass(frozen=True)
class Job:
    """What is the same for all shards of a sweep."""

    dataset: Dataset
    make: MakeVariants
    models: tuple[Predictor, ...]  # no two with the same key
    workers: int  # that load, in this machine's own sweeps


class Executor(Protocol):
    """Answers shards."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time spent elsewhere: not by this process or its children."""

    def prepare(self, calls: Sequence[Callable[[], None]]) -> None:
        """Make what this process would make later, such as entries of a shared cache, elsewhere.

        Each call has a machine to itself. One that fails leaves its work to this process.
        """

    def run(
        self, job: Job, shards: Iterator[Shard], arrived: Arrived
    ) -> Generator[Shard, None, None]:
        """Yield the shards in their order, each after ``arrived`` was told its outputs.

        That may be earlier than its turn. Shards are taken from their iterator as they can be
        answered, never many more than are yielded; closing the generator stops the work.
        """


class LocalExecutor:
    """Worker processes corrupt the next images while the models run on this one."""

    cpu_seconds = 0.0

    def prepare(self, calls: Sequence[Callable[[], None]]) -> None:
        """There is no other machine."""

    def run(
        self, job: Job, shards: Iterator[Shard], arrived: Arrived
    ) -> Generator[Shard, None, None]:
        """As `Executor.run`."""
        ahead: deque[Shard] = deque()

        def tasks() -> Iterator[Task]:
            for shard in shards:
                ahead.append(shard)
                # Empty ones are queued, too: that bounds how far this runs ahead.
                yield shard.image, shard.numbers

        with Pool(job.dataset, job.make, job.workers) as pool:
            for pixels in pool.map(tasks(), chunk=1):
                shard = ahead.popleft()
                arrived(shard, answer(job.models, shard, pixels))
                yield shard


LOCAL: Final = LocalExecutor()


def answer(models: tuple[Predictor, ...], shard: Shard, pixels: NDArray[np.uint8]) -> ShardOutputs:
    """Run each model on its rows of ``pixels``, which are the shard's variants."""
    return tuple(
        condense(model.run(pixels[list(rows)])) if rows else None
        for model, rows in zip(models, shard.rows, strict=True)
    )
