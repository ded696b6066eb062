"""Has the stream of images changed? A test that may look after every image, for years.

Each image's symbol becomes a *conformal* p-value: its place among the symbols of the reference and
of all images so far, ties broken by chance. As long as these are exchangeable, because nothing has
changed, the p-values are independent and uniform, however small the reference is: nothing is
estimated, so nothing has to be allowed for. Bets on them are made by experts, one for each way in
which the world is known to change; an expert's density is the ratio of its symbols' frequencies to
the clean ones'. They know these from other images than those that the stream is compared with: a
bet that depends on the latter's chances would win by them.

A Shiryaev-Roberts sum of its bets over all possible moments of the change, minus the number of
images, is a martingale under no change. So the average over the experts reaches N only after N
images on average: at most one false alarm in N images. docs/watch.md has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.field.reference import FieldReference

Floats = NDArray[np.float64]

SHARES: Final = (1.0, 0.3)  # of the images that an expert believes to have changed
_PRIOR_IMAGES: Final = 8.0  # weight of the pooled frequencies in an expert's own
_UNIFORM: Final = 0.02  # share of the uniform distribution in the pooled frequencies
_LEARNERS: Final = (50.0, 200.0)  # images that an expert without knowledge remembers
_LEARNER_BINS: Final = 16
_KEPT: Final = (1 - 1 / np.array(_LEARNERS))[:, None]  # of what they remember, after an image
_LEARNERS_WEIGHT: Final = 0.1
_BEYOND: Final = 5.0  # nats above the threshold that evidence may grow to, so that it can fall


@dataclass(frozen=True)
class Expert:
    """A way in which images may have changed: this share of them into that cell."""

    cell: int  # its number in the reference
    share: float


@dataclass(frozen=True, eq=False)
class Experts:
    """All that the reference knows, as bets on p-values in [0, 1)."""

    reference: FieldReference

    @cached_property
    def all(self) -> tuple[Expert, ...]:
        """In the order of the table's rows: by codeword alone, then with the margin."""
        return tuple(
            Expert(cell, share)
            for _ in range(self._kinds)
            for cell in range(len(self.reference.cells))
            for share in SHARES
        )

    @property
    def _kinds(self) -> int:
        return 1 if self.reference.bins == 1 else 2

    @cached_property
    def frequencies(self) -> tuple[Floats, Floats, Floats]:
        """Smoothed frequencies of the symbols: clean [symbols], in each cell, and in all."""
        size = self.reference.symbols
        clean = self.reference.clean.dense(size).astype(np.float64)
        cells = np.array([cell.dense(size) for cell in self.reference.cells], np.float64)
        cells = cells.reshape(-1, size)
        pooled = clean / clean.sum() + cells.sum(axis=0) / max(cells.sum(), 1.0)
        pooled = (1 - _UNIFORM) * pooled / pooled.sum() + _UNIFORM / size

        def smooth(counts: Floats) -> Floats:
            counts = counts + _PRIOR_IMAGES * pooled
            return np.asarray(counts / counts.sum(axis=-1, keepdims=True))

        return smooth(clean), smooth(cells), np.asarray(pooled)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Symbols from the most typical of clean images to the most typical of corrupted ones.

        Whole codewords one after the other, each with its bins in order, so that a bet by codeword
        alone is constant over an interval, and neighbors deserve similar bets.
        """
        bins = self.reference.bins
        clean, cells, _ = self.frequencies
        corrupted = cells.mean(axis=0) if len(cells) else clean
        by_code = corrupted.reshape(-1, bins).sum(axis=1) / clean.reshape(-1, bins).sum(axis=1)
        codes = np.argsort(by_code, kind="stable")
        within = np.argsort((corrupted / clean).reshape(-1, bins), axis=1, kind="stable")
        return np.asarray((codes[:, None] * bins + within[codes]).ravel(), np.int64)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Each symbol's place in `order`."""
        rank = np.empty_like(self.order)
        rank[self.order] = np.arange(len(rank))
        return rank

    @cached_property
    def ends(self) -> Floats:
        """Where the symbols' intervals end, in `order`: bets are constant in between."""
        ends = np.cumsum(self.frequencies[0][self.order])
        ends[-1] = 1.0
        return np.asarray(ends)

    @cached_property
    def bets(self) -> NDArray[np.float32]:
        """log densities [symbols in `order`, experts]; each integrates to 1 over [0, 1)."""
        clean, cells, _ = self.frequencies
        bins = self.reference.bins
        by_symbol = cells / clean
        by_code = cells.reshape(len(cells), -1, bins).sum(axis=2)
        by_code = by_code / clean.reshape(-1, bins).sum(axis=1)
        kinds = [np.repeat(by_code, bins, axis=1), by_symbol][: self._kinds]
        ratios = np.concatenate(
            [
                np.stack([share * kind + 1 - share for share in SHARES], axis=1).reshape(
                    -1, kind.shape[1]
                )
                for kind in kinds
            ]
        )
        return np.ascontiguousarray(np.log(ratios[:, self.order]).T, np.float32)

    @cached_property
    def log_weights(self) -> Floats:
        """log of what each one's opinion counts, the learners' last; the weights' sum is 1."""
        known, learners = len(self.all), len(_LEARNERS)
        rest = 1.0 if known == 0 else _LEARNERS_WEIGHT
        return np.log([(1 - rest) / max(known, 1)] * known + [rest / learners] * learners)


@dataclass(eq=False)
class Detector:
    """The evidence so far. Everything here is saved, and nothing grows with the images."""

    experts: Experts
    threshold: float  # log of the images a false alarm
    counts: NDArray[np.int64]  # of symbols in `order`: the reference's and the stream's
    evidence: Floats  # log Shiryaev-Roberts sums: the experts', then the learners'
    peak: Floats  # log likelihood ratios since each one's likeliest moment of change
    since: NDArray[np.int64]  # that moment, as a number of images
    learned: Floats  # [learners, bins] what the learners remember
    images: int = 0

    @classmethod
    def begin(cls, experts: Experts, images_a_false_alarm: float) -> Detector:
        """Before the first image."""
        count = len(experts.all) + len(_LEARNERS)
        reference = experts.reference
        return cls(
            experts=experts,
            threshold=float(np.log(images_a_false_alarm)),
            counts=reference.normal.dense(reference.symbols)[experts.order],
            evidence=np.full(count, -np.inf),
            peak=np.zeros(count),
            since=np.zeros(count, np.int64),
            learned=np.zeros((len(_LEARNERS), _LEARNER_BINS)),
        )

    @property
    def total(self) -> float:
        """log of the evidence for a change; an alarm at `threshold`."""
        weighted = self.evidence + self.experts.log_weights
        best = float(weighted.max())
        if best == -np.inf:
            return best
        return best + float(np.log(np.exp(weighted - best).sum()))

    @property
    def alarming(self) -> bool:
        """Whether the evidence is enough."""
        return self.total >= self.threshold

    @property
    def calm(self) -> bool:
        """Whether it has fallen so far that an alarm is over: to the root of what raises one."""
        return self.total < self.threshold / 2

    def update(self, symbol: int, chance: float, *, learn: bool = True) -> float:
        """Take in an image; ``chance`` is uniform in [0, 1). Returns its p-value.

        Unless ``learn``, the image does not become part of what is normal.
        """
        place = int(self.experts.rank[symbol])
        before = int(self.counts[:place].sum())
        here, total = int(self.counts[place]) + 1, int(self.counts.sum()) + 1
        value = (before + chance * here) / total
        if learn:
            self.counts[place] += 1
        bet = self._bets(value)
        self.images += 1
        started = self.peak <= 0
        self.since = np.where(started, self.images - 1, self.since)
        self.peak = np.maximum(self.peak, 0.0) + bet
        self.evidence = np.logaddexp(self.evidence, 0.0) + bet
        # An alarm must be able to end. All lose the same, so the experts' order stays.
        self.evidence -= max(self.total - self.threshold - _BEYOND, 0.0)
        return value

    def _bets(self, value: float) -> Floats:
        place = int(np.searchsorted(self.experts.ends, value, side="right"))
        place = min(place, len(self.experts.ends) - 1)
        known = self.experts.bets[place]
        bin_ = min(int(value * _LEARNER_BINS), _LEARNER_BINS - 1)
        seen = self.learned.sum(axis=1)
        learned = _LEARNER_BINS * (self.learned[:, bin_] + 1) / (seen + _LEARNER_BINS)
        self.learned *= _KEPT
        self.learned[:, bin_] += 1
        return np.concatenate([known, np.log(learned)])

    def take_as_normal(self, symbols: NDArray[np.int64]) -> None:
        """Compare with images of these symbols instead of the reference's."""
        self.counts[:] = 0
        np.add.at(self.counts, self.experts.rank[symbols], 1)

    def begin_anew(self) -> None:
        """Drop all evidence; what is normal stays known."""
        self.evidence[:] = -np.inf
        self.peak[:] = 0.0
        self.since[:] = self.images
        self.learned[:] = 0.0

    def forget(self, symbols: NDArray[np.int64]) -> None:
        """Take back symbols that were learned as normal and turned out not to be."""
        np.subtract.at(self.counts, self.experts.rank[symbols], 1)
