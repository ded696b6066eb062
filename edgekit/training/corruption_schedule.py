"""Which corruption an image is given: in training at random, in evaluation by a fixed design.

All of it follows from seeds and image keys, never from a generator's state, so that any process
can compute any image and a resumed run continues where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgekit.data.base import IndexArray
from edgekit.data.loading import epoch_order, rng_for
from edgekit.training.config import Pairing


class Corruption(NamedTuple):
    """A corruption type at a severity; the type "" leaves the image clean."""

    name: str
    severity: int

    def __str__(self) -> str:
        return f"{self.name} {self.severity}" if self.name else "clean"


CLEAN = Corruption("", 0)


def draw(seen: Sequence[str], seed: int, epoch: int, key: str) -> Corruption:
    """One of all (type, severity) pairs of ``seen``, each as likely."""
    first, second = _raw(seed, epoch, key, 2)
    return Corruption(seen[first % len(seen)], 1 + second % 5)


def training_views(
    pairing: Pairing, seen: Sequence[str], seed: int, epoch: int, key: str
) -> tuple[Corruption, ...]:
    """How image ``key`` is seen in one epoch: once, or as a clean and a corrupted image."""
    if pairing == "clean":
        return (CLEAN,)
    corruption = draw(seen, seed, epoch, key)
    if pairing == "paired":
        return CLEAN, corruption
    return (CLEAN if drawn_clean(seen, seed, epoch, key) else corruption,)


def drawn_clean(seen: Sequence[str], seed: int, epoch: int, key: str) -> bool:
    """Whether a sampled image stays clean: clean is one more type, as in the paper's code."""
    return _raw(seed, epoch, f"clean\n{key}", 1)[0] % (len(seen) + 1) == 0


def noise_seed(seed: int, epoch: int) -> int:
    """The corruptions' own seed, another one each epoch and never evaluation's, which is 0."""
    digest = hashlib.sha256(f"training noise\n{seed}\n{epoch}".encode()).digest()
    return 1 + int.from_bytes(digest[:6], "little")


def rotated_severities(count: int, corruption: int) -> IndexArray:
    """The severity [count] at which each image meets corruption number ``corruption``.

    Every image meets every type at one severity, and each severity has a fifth of the images:
    a fifth of the work of the full grid for the same expected mean corruption error. Images take
    turns in shuffled order, because their own order may follow the classes.
    """
    rank = np.empty(count, np.int64)
    rank[epoch_order(count, 0, 0)] = np.arange(count)
    return 1 + (rank + corruption) % 5


def _raw(seed: int, epoch: int, key: str, count: int) -> list[int]:
    bits = rng_for(seed, epoch, f"corruption\n{key}").bit_generator
    return [int(bits.random_raw()) for _ in range(count)]
