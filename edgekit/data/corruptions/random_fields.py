"""The random draws a corruption needs, and the generator that makes them reproducible.

The corruptions take their randomness as an argument (`Draws`), so that they can be run on any
source: `KeyedDraws` in production, a replay of the reference's generator in the tests.

`KeyedDraws` transforms the raw bits of a bit generator itself. NumPy promises never to change a
bit generator's stream, but not what `Generator.normal` and its like make of it, and a cell of
a robustness table must stay the same image for years. It is also several times faster: an
image needs 8 bits of precision, not 53.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from functools import cached_property, lru_cache
from hashlib import blake2b
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Reals = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

_BLOCK = 1 << 14  # values worked on at a time, so that intermediate arrays stay in the cache


class Draws(Protocol):
    """A source of independent random numbers. Every array is fresh: the caller may change it."""

    def normal(self, shape: Shape) -> Reals:
        """Standard normal numbers."""

    def uniform(self, shape: Shape) -> Reals:
        """Numbers uniform in [0, 1)."""

    def integers(self, low: int, high: int, shape: Shape) -> Integers:
        """Integers uniform in low ... high - 1."""

    def photon_counts(self, image: NDArray[np.uint8], full_scale: int) -> Integers:
        """Poisson counts of mean image / 255 * full_scale.

        A count beyond ``full_scale`` saturates the sensor and may be returned as ``full_scale``.
        """


class KeyedDraws:
    """Draws decided by (image id, corruption, severity, seed) alone, on any machine."""

    def __init__(self, image_id: str, corruption: str, severity: int, seed: int) -> None:
        self._key = (image_id, corruption, int(severity), int(seed))

    @cached_property
    def _bits(self) -> np.random.PCG64DXSM:
        # Seeded at the first draw: half of the corruptions draw nothing.
        text = json.dumps(self._key).encode()
        digest = blake2b(text, digest_size=32, person=b"edgekit-corrupt").digest()
        return np.random.PCG64DXSM(int.from_bytes(digest, "little"))

    def normal(self, shape: Shape) -> Reals:
        """Standard normal numbers out of 65,536 equally probable ones (largest 4.39)."""
        return np.asarray(normal_table().take(self._words16(math.prod(shape)))).reshape(shape)

    def uniform(self, shape: Shape) -> Reals:
        """Numbers uniform in [0, 1), multiples of 2^-24."""
        values = (self._words32(math.prod(shape)) >> np.uint32(8)).astype(np.float32)
        values *= np.float32(2.0**-24)
        return values.reshape(shape)

    def integers(self, low: int, high: int, shape: Shape) -> Integers:
        """Integers uniform in low ... high - 1; a probability is off by 2^-32 at most."""
        words = self._words32(math.prod(shape)).astype(np.uint64)
        words *= np.uint64(high - low)
        words >>= np.uint64(32)
        return (words.astype(np.int32) + np.int32(low)).reshape(shape)

    def photon_counts(self, image: NDArray[np.uint8], full_scale: int) -> Integers:
        """Poisson counts, capped at ``full_scale``, by Walker's alias method."""
        table = photon_table(full_scale)
        words = self._words32(image.size)
        levels = image.reshape(-1)
        counts = np.empty(image.size, dtype=np.uint16)
        for start in range(0, image.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            counts[block] = table.counts(levels[block], words[block])
        return counts.reshape(image.shape)

    def _words16(self, count: int) -> NDArray[np.uint16]:
        return self._raw(-(-count // 4)).view("<u2")[:count]

    def _words32(self, count: int) -> NDArray[np.uint32]:
        return self._raw(-(-count // 2)).view("<u4")[:count]

    def _raw(self, count: int) -> NDArray[np.uint64]:
        words: NDArray[np.uint64] = np.asarray(self._bits.random_raw(count), dtype="<u8")
        return words


@lru_cache(maxsize=1)
def normal_table() -> NDArray[np.float32]:
    """65,536 numbers which, drawn with equal probability, follow a standard normal.

    Entry i is the mean of the distribution between its quantiles i and i + 1 of 65,536, which
    keeps the mean of 0 and, to 1.5e-6, the variance of 1.
    """
    half = 1 << 15
    normal = NormalDist()
    edges = [0.0] + [normal.inv_cdf(0.5 + i / (2 * half)) for i in range(1, half)]
    density = np.array([*(math.exp(-0.5 * edge * edge) for edge in edges), 0.0])
    upper = (density[:-1] - density[1:]) * (2 * half / math.sqrt(2 * math.pi))
    return np.concatenate([-upper[::-1], upper]).astype(np.float32)


class PhotonTable:
    """Alias tables of 256 capped Poisson distributions, one for each pixel value.

    ``threshold`` and ``alias`` have 256 << outcome_bits entries, one for each outcome of each
    pixel value: the outcome stands if a uniform integer below 2^(32 - outcome_bits) is under the
    threshold, else the alias takes its place.
    """

    def __init__(self, full_scale: int) -> None:
        self.outcome_bits = full_scale.bit_length()
        slots = 1 << self.outcome_bits
        share = np.zeros((256, slots))
        share[:, : full_scale + 1] = capped_poisson(full_scale) * slots
        rows = np.arange(256)
        threshold = np.ones_like(share)
        alias = np.tile(np.arange(slots), (256, 1))
        # The poorest slot is filled up by the richest until all hold 1; a filled slot counts as
        # 1 from then on, so rows that finish early do nothing more.
        for _ in range(slots):
            poor, rich = share.argmin(axis=1), share.argmax(axis=1)
            held = share[rows, poor]
            if held.min() > 1 - 1e-9:
                break
            threshold[rows, poor] = held
            alias[rows, poor] = rich
            share[rows, rich] -= 1 - held
            share[rows, poor] = 1.0
        unit = 1 << (32 - self.outcome_bits)
        self.threshold = np.rint(threshold * unit).astype(np.uint32).reshape(-1)
        self.alias = alias.astype(np.uint16).reshape(-1)

    def counts(self, levels: NDArray[np.uint8], words: NDArray[np.uint32]) -> Integers:
        """A count for each pixel value, decided by 32 random bits each."""
        fraction_bits = np.uint32(32 - self.outcome_bits)
        outcome = words >> fraction_bits
        fraction = words & ((np.uint32(1) << fraction_bits) - np.uint32(1))
        cell = levels.astype(np.uint32) << np.uint32(self.outcome_bits)
        cell += outcome
        return np.where(fraction < self.threshold.take(cell), outcome, self.alias.take(cell))


@lru_cache(maxsize=16)
def photon_table(full_scale: int) -> PhotonTable:
    """The alias tables for one noise level; built once (0.1 s at the largest scale, 500)."""
    return PhotonTable(full_scale)


def capped_poisson(full_scale: int) -> NDArray[np.float64]:
    """Probabilities [256, full_scale + 1] of min(Poisson(v / 255 * full_scale), full_scale).

    Only operations that IEEE 754 or the decimal module define to the last bit: the alias tables
    must pair the same outcomes on every machine.
    """
    mean = np.arange(256) * full_scale / 255
    below = np.empty((256, full_scale))
    below[:, 0] = [float(Decimal(-value).exp()) for value in mean.tolist()]
    for count in range(1, full_scale):
        below[:, count] = below[:, count - 1] * mean / count
    at_the_cap = 1 - below.cumsum(axis=1)[:, -1:]
    return np.hstack([below, np.maximum(at_the_cap, 0)])
