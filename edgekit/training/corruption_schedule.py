"""Which corruption an image gets in training: one at random, drawn anew every epoch.

Everything follows from seeds and image keys, never from a generator's state: any process can
compute any image, and a resumed run continues where it stopped.
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


def draw(corruptions: Sequence[str], seed: int, epoch: int, key: str) -> Corruption:
    """One of the (type, severity) pairs of ``corruptions``, all equally likely."""
    first, second = _raw(seed, epoch, key, 2)
    return Corruption(corruptions[first % len(corruptions)], 1 + second % 5)


def training_views(
    pairing: Pairing, corruptions: Sequence[str], seed: int, epoch: int, key: str
) -> tuple[Corruption, ...]:
    """The views of image ``key`` in one epoch: a single one, or a clean and a corrupted one."""
    if pairing == "clean":
        return (CLEAN,)
    corruption = draw(corruptions, seed, epoch, key)
    if pairing == "paired":
        return CLEAN, corruption
    return (CLEAN if drawn_clean(corruptions, seed, epoch, key) else corruption,)


def drawn_clean(corruptions: Sequence[str], seed: int, epoch: int, key: str) -> bool:
    """Whether a sampled image stays clean: clean is one more type, as in the paper's code."""
    return _raw(seed, epoch, f"clean\n{key}", 1)[0] % (len(corruptions) + 1) == 0


def noise_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's corruptions; never 0, which is evaluation's."""
    digest = hashlib.sha256(f"training noise\n{seed}\n{epoch}".encode()).digest()
    return 1 + int.from_bytes(digest[:6], "little")


def _raw(seed: int, epoch: int, key: str, count: int) -> list[int]:
    bits = rng_for(seed, epoch, f"corruption\n{key}").bit_generator
    return [int(bits.random_raw()) for _ in range(count)]
