"""What runs in a worker of a Ray cluster: makes variants, answers them, sends the outputs back.

Data and models come by reference: the worker opens the same files, and refuses to answer if they,
or what makes the pixels, are not the same there.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edgekit.core.errors import EdgekitError
from edgekit.core.host import cpu_flags, limit_threads
from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import MakeVariants
from edgekit.parity.answer_cache import Outputs, condense
from edgekit.parity.engines import CheckedPredictor, Checks, EnginesDiffer
from edgekit.parity.executors import Shard, ShardOutputs
from edgekit.parity.predictors import Opener, Predictor


@dataclass(frozen=True)
class Failure:
    """Why a worker has no answer."""

    kind: Literal["setup", "engines", "shard"]
    host: str
    message: str


class Ready(NamedTuple):
    """A worker that can answer."""

    host: str
    flags: frozenset[str]  # of its CPU


class Answered(NamedTuple):
    """The outputs for a shard, and what they cost."""

    outputs: ShardOutputs
    checks: tuple[Checks, ...]  # of each model
    cpu_seconds: float


def pack(shard: Shard, turns: tuple[int, ...]) -> bytes:
    """What `Worker.answer` takes."""
    return pickle.dumps((tuple(shard), turns), protocol=5)


class Worker:
    """One process with one thread, and its own copies of the models."""

    def __init__(self) -> None:
        limit_threads(1)  # there are as many workers as cores
        self._host = socket.gethostname()
        self._openers: dict[str, Opener] = {}
        self._models: dict[str, Predictor] = {}
        self._keys: tuple[str, ...] = ()
        self._dataset: Dataset
        self._make: MakeVariants

    def prepare(
        self,
        data: tuple[Dataset, MakeVariants],
        keys: tuple[str, ...],
        fingerprint: str,
        folder: str,
    ) -> Ready | Failure:
        """Get ready for a sweep of models with these keys; paths are relative to ``folder``."""
        self._dataset, self._make = data
        self._keys = keys
        try:
            os.chdir(folder)
        except OSError as error:
            return self._failure(
                "setup",
                f"has no folder {folder} ({error.strerror}): start where all machines see the "
                "same files",
            )
        if self._make.fingerprint() != fingerprint:
            return self._failure(
                "setup",
                "would make other pixels: install the same edgekit, opencv-python-headless, "
                "scipy, numpy and pillow on all machines",
            )
        return Ready(self._host, cpu_flags())

    def answer(self, packed: bytes, openers: Mapping[str, Opener] | None = None) -> bytes:
        """Do a `pack`ed shard; ``openers`` are of models that this worker has not had yet.

        Both ways it is one object of bytes: Ray spends a third of a millisecond on each other one.
        """
        for key, opener in (openers or {}).items():
            self._openers[key] = opener
            self._models.pop(key, None)
        shard, turns = pickle.loads(packed)
        return pickle.dumps(self._answer(Shard(*shard), turns), protocol=5)

    def _answer(self, shard: Shard, turns: tuple[int, ...]) -> Answered | Failure:
        """Make the variants of a shard and answer them."""
        start = time.process_time()
        models: list[Predictor | None] = []
        for key, rows in zip(self._keys, shard.rows, strict=True):
            try:
                models.append(self._model(key) if rows else None)
            except EdgekitError as error:
                return self._failure("setup", f"cannot open a model: {error}")
        outputs: list[Outputs | None] = []
        checks = []
        try:
            pixels = self._make(self._dataset, (shard.image, shard.numbers))
            for model, rows, turn in zip(models, shard.rows, turns, strict=True):
                found, counted = None, Checks()
                if isinstance(model, CheckedPredictor):
                    answers, counted = model.run_turn(pixels[list(rows)], turn)
                    found = condense(answers)
                elif model is not None:
                    found = condense(model.run(pixels[list(rows)]))
                outputs.append(found)
                checks.append(counted)
        except EnginesDiffer as error:
            return self._failure("engines", str(error))
        except EdgekitError as error:
            return self._failure("shard", str(error))
        return Answered(tuple(outputs), tuple(checks), time.process_time() - start)

    def _model(self, key: str) -> Predictor:
        """The model called ``key``, opened when it is first asked."""
        if key not in self._models:
            model = self._openers[key]()
            if model.key != key:
                raise EdgekitError(
                    f"{model.name} is another file or runs in another runtime there: install the "
                    "same packages on all machines, and give paths that all of them see"
                )
            self._models[key] = model
        return self._models[key]

    def _failure(self, kind: Literal["setup", "engines", "shard"], message: str) -> Failure:
        return Failure(kind, self._host, message)
