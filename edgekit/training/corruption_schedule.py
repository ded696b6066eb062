"""Which corruption an image is given in training: one at random, another one in every epoch.

All of it follows from seeds and image keys, never from a generator's state, so that any process
can compute any image and a resumed run continues where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from edgekit.data.loading import rng_for
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


def _raw(seed: int, epoch: int, key: str, count: int) -> list[int]:
    bits = rng_for(seed, epoch, f"corruption\n{key}").bit_generator
    return [int(bits.random_raw()) for _ in range(count)]
