"""Has the stream of images changed? A test that may look after every image, for years.

Each image's symbol becomes a *conformal* p-value: its place among the symbols of the reference and
of all images so far, ties broken by chance. As long as these are exchangeable, because nothing has
changed, the p-values are independent and uniform, however small the reference is: nothing is
estimated, so nothing has to be allowed for. Experts bet on them, one for each way in which the
world is known to change; an expert's density is the ratio of its images' frequencies to the clean
ones'. They know these from other images than those that the stream is compared with: a bet that
depends on the latter's chances would win by them.

A place needs an order. Every corruption has one of its own, from the symbols that are most typical
of it to those of clean images: what is evidence for fog is none for noise. Each order gives
p-values that are uniform by themselves but not given another order's, so the experts' evidence is
added up within an order only, and an alarm needs one order that has enough of it alone, with its
share of the permitted false alarms. docs/watch.md has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.field.reference import FieldReference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARES: Final = (1.0, 0.3)  # of the images that an expert believes to have changed
LEVELS: Final = 16  # of how typical a symbol is; bets are constant on a level
_PRIOR_IMAGES: Final = 8.0  # weight of the pooled frequencies in a distribution's own
_CELL_IMAGES: Final = 32.0  # that of what a cell should be like, in its own frequencies
_UNIFORM: Final = 0.02  # share of the uniform distribution in the pooled frequencies
_LEARNERS: Final = (50.0, 200.0)  # images that an expert without knowledge remembers
KEPT: Final = (1 - 1 / np.array(_LEARNERS))[:, None]  # of what they remember, after an image
_LEARNERS_WEIGHT: Final = 0.1
_BEYOND: Final = 5.0  # nats above the threshold that evidence may grow to, so that it can fall
_BELOW: Final = np.tri(LEVELS, k=-1, dtype=np.int64)  # row: the levels before this one


@dataclass(frozen=True)
class Expert:
    """A way in which images may have changed: this share of them into that cell."""

    cell: int  # its number in the reference
    share: float


@dataclass(frozen=True, eq=False)
class Experts:
    """All that the reference knows, as bets on p-values in [0, 1).

    The first order is that of the learners, by how typical a symbol is of any corruption; then
    comes each corruption's.
    """

    reference: FieldReference

    @cached_property
    def corruptions(self) -> tuple[Ints, ...]:
        """The cells of each corruption."""
        names = [cell.corruption for cell in self.reference.cells]
        return tuple(np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names))

    @cached_property
    def all(self) -> tuple[Expert, ...]:
        """In the order of the tables' rows, corruption by corruption."""
        return tuple(
            Expert(cell, share)
            for cells in self.corruptions
            for cell in cells.tolist()
            for share in SHARES
        )

    @cached_property
    def _counts(self) -> tuple[Floats, Floats]:
        """How often each symbol occurred: clean [symbols], and in each cell."""
        size = self.reference.symbols
        clean = self.reference.clean.dense(size).astype(np.float64)
        cells = np.array([cell.dense(size) for cell in self.reference.cells], np.float64)
        return clean, cells.reshape(-1, size)

    @cached_property
    def frequencies(self) -> tuple[Floats, Floats]:
        """Smoothed frequencies of the symbols: of clean images, and of all."""
        clean, cells = self._counts
        pooled = _pooled(clean, cells.sum(axis=0))
        return _smooth(clean, pooled), pooled

    @cached_property
    def by_cell(self) -> Floats:
        """Frequencies of the symbols in each cell [cells, symbols], to tell cells apart by.

        A few dozen images leave most symbols of a cell unseen, but tell how often it has each
        codeword and each margin; what a cell lacks is taken from these as if they were
        independent, and these in part from the corruption's other severities.
        """
        _, cells = self._counts
        found = np.empty_like(cells)
        for rows in self.corruptions:
            every = cells[rows].sum(axis=0)
            alike = self._independent(every + _PRIOR_IMAGES * self.frequencies[1])
            alike = _smooth(every, alike, _CELL_IMAGES)
            own = self._independent(cells[rows] + _CELL_IMAGES * alike)
            found[rows] = _smooth(cells[rows], own, _CELL_IMAGES)
        return found

    def _independent(self, counts: Floats) -> Floats:
        """Frequencies of symbols [..., symbols] whose codewords and margins are independent."""
        table = counts.reshape(*counts.shape[:-1], -1, self.reference.bins)
        codes, margins = (
            _smooth(table.sum(axis=axis), np.full(table.shape[other], 1 / table.shape[other]), 2.0)
            for axis, other in ((-1, -2), (-2, -1))
        )
        return np.asarray(codes[..., :, None] * margins[..., None, :]).reshape(counts.shape)

    @cached_property
    def levels(self) -> NDArray[np.uint8]:
        """Of each symbol in each order [orders, symbols]; 0 is the most typical of corruptions."""
        clean, cells = self._counts
        kinds = [cells, *(cells[rows] for rows in self.corruptions)]
        return np.stack([self._levels(clean, kind.sum(axis=0)) for kind in kinds])

    def _levels(self, clean: Floats, corrupted: Floats) -> NDArray[np.uint8]:
        """By codeword and by margin as if independent: few images tell more about these."""
        shape = (-1, self.reference.bins)
        scores = np.zeros((len(clean) // shape[1], shape[1]))
        for axis in (0, 1):
            one, other = (counts.reshape(shape).sum(axis=axis) for counts in (clean, corrupted))
            pooled = _pooled(one, other)
            ratio = np.log(_smooth(other, pooled) / _smooth(one, pooled))
            scores += ratio if axis == 0 else ratio[:, None]
        mass = _smooth(_pooled(clean, corrupted) * _PRIOR_IMAGES, self.frequencies[1])
        order = np.argsort(-scores.ravel(), kind="stable")
        middle = np.cumsum(mass[order]) - mass[order] / 2
        levels = np.empty(len(clean), np.uint8)
        levels[order] = np.minimum(middle * LEVELS, LEVELS - 1)
        return levels

    def count(self, symbols: Ints) -> Ints:
        """How many of the symbols are on each level of each order [orders, levels]."""
        places = self.levels[:, symbols] + LEVELS * np.arange(len(self.levels))[:, None]
        return np.bincount(places.ravel(), minlength=self.levels.shape[0] * LEVELS).reshape(
            -1, LEVELS
        )

    @cached_property
    def _bets(self) -> tuple[Floats, Floats]:
        """Where the levels' intervals end [corruptions, levels], and the bets there."""
        clean, cells = self._counts
        ends, bets = [np.empty((0, LEVELS))], [np.empty((0, LEVELS))]
        for levels, rows in zip(self.levels[1:], self.corruptions, strict=True):
            by_level = np.zeros((LEVELS, len(levels)))
            by_level[levels, np.arange(len(levels))] = 1
            usual, kinds = by_level @ clean, cells[rows] @ by_level.T
            every = kinds.sum(axis=0)
            pooled = _pooled(usual, every)
            usual = _smooth(usual, pooled)
            kinds = _smooth(kinds, _smooth(every, pooled))
            ratios = [_falling(kind / usual, usual) for kind in kinds]
            bets.append(np.stack([share * r + 1 - share for r in ratios for share in SHARES]))
            ends.append(np.cumsum(usual)[None])
        return np.concatenate(ends), np.concatenate(bets)

    @cached_property
    def ends(self) -> Floats:
        """Where the levels' intervals end in each corruption's order: bets are constant between."""
        ends = self._bets[0]
        ends[:, -1:] = 1.0
        return ends

    @cached_property
    def bets(self) -> Floats:
        """log densities [experts, levels]; each integrates to 1 over [0, 1)."""
        return np.asarray(np.log(self._bets[1]))

    @cached_property
    def order_of(self) -> Ints:
        """The order that each expert bets on, among the corruptions'."""
        sizes = [len(rows) * len(SHARES) for rows in self.corruptions]
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def starts(self) -> Ints:
        """The first expert of each order, the learners' order last."""
        first = np.flatnonzero(np.diff(self.order_of, prepend=-1))
        return np.append(first, len(self.order_of))

    @cached_property
    def log_weights(self) -> Floats:
        """log of what each one's opinion counts, the learners' last.

        The sum is 1/2: that is what it costs that orders cannot be added up.
        """
        orders, learners = len(self.corruptions), len(_LEARNERS)
        rest = 1.0 if orders == 0 else _LEARNERS_WEIGHT
        sizes = np.bincount(self.order_of, minlength=orders)
        known = (1 - rest) / max(orders, 1) / sizes[self.order_of]
        return np.log(np.append(known, [rest / learners] * learners) / 2)


def _pooled(clean: Floats, corrupted: Floats) -> Floats:
    """Frequencies in both, equally, and a little of everything."""
    frequencies = [counts / counts.sum() for counts in (clean, corrupted) if counts.any()]
    return np.asarray((1 - _UNIFORM) * np.mean(frequencies, axis=0) + _UNIFORM / len(clean))


def _smooth(counts: Floats, prior: Floats, images: float = _PRIOR_IMAGES) -> Floats:
    counts = counts + images * prior
    return np.asarray(counts / counts.sum(axis=-1, keepdims=True))


def _falling(ratio: Floats, weights: Floats) -> Floats:
    """The nearest ratios that never rise, with the same mean: levels are in that order."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(ratio.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] < block[0]:
            before = blocks.pop()
            total = before[1] + block[1]
            mean = (before[0] * before[1] + block[0] * block[1]) / total
            block = (mean, total, before[2] + block[2])
        blocks.append(block)
    return np.repeat([value for value, _, _ in blocks], [count for _, _, count in blocks])


@dataclass(eq=False)
class Detector:
    """The evidence so far. Everything here is saved, and nothing grows with the images."""

    experts: Experts
    threshold: float  # log of the images a false alarm
    counts: Ints  # [orders, levels] of the reference and the stream
    evidence: Floats  # log Shiryaev-Roberts sums: the experts', then the learners'
    peak: Floats  # log likelihood ratios since each one's likeliest moment of change
    since: Ints  # that moment, as a number of images
    learned: Floats  # [learners, levels] what the learners remember
    images: int = 0

    @classmethod
    def begin(cls, experts: Experts, images_a_false_alarm: float) -> Detector:
        """Before the first image."""
        count = len(experts.all) + len(_LEARNERS)
        normal = experts.reference.normal
        return cls(
            experts=experts,
            threshold=float(np.log(images_a_false_alarm)),
            counts=experts.count(np.repeat(normal.symbols, normal.counts)),
            evidence=np.full(count, -np.inf),
            peak=np.zeros(count),
            since=np.zeros(count, np.int64),
            learned=np.zeros((len(_LEARNERS), LEVELS)),
        )

    @property
    def total(self) -> float:
        """log of the evidence for a change, in the order that has most; an alarm at `threshold`."""
        weighted = self.evidence + self.experts.log_weights
        return float(np.logaddexp.reduceat(weighted, self.experts.starts).max())

    @property
    def alarming(self) -> bool:
        """Whether the evidence is enough."""
        return self.total >= self.threshold

    @property
    def calm(self) -> bool:
        """Whether it has fallen so far that an alarm is over: to the root of what raises one."""
        return self.total < self.threshold / 2

    def update(self, symbol: int, chance: float, *, learn: bool = True) -> Floats:
        """Take in an image; ``chance`` is uniform in [0, 1). Returns its p-value in each order.

        Unless ``learn``, the image does not become part of what is normal.
        """
        levels = self.experts.levels[:, symbol]
        orders = np.arange(len(levels))
        before = (self.counts * _BELOW[levels]).sum(axis=1)
        here, total = self.counts[orders, levels] + 1, int(self.counts[0].sum()) + 1
        values = np.asarray((before + chance * here) / total)
        if learn:
            self.counts[orders, levels] += 1
        bet = np.concatenate([self._known(values[1:]), self._learned(float(values[0]))])
        self.images += 1
        self.since = np.where(self.peak <= 0, self.images - 1, self.since)
        self.peak = np.maximum(self.peak, 0.0) + bet
        self.evidence = np.logaddexp(self.evidence, 0.0) + bet
        # An alarm must be able to end. All lose the same, so the experts' order stays.
        self.evidence -= max(self.total - self.threshold - _BEYOND, 0.0)
        return values

    def _known(self, values: Floats) -> Floats:
        experts = self.experts
        places = (values[:, None] >= experts.ends[:, :-1]).sum(axis=1)
        return np.asarray(experts.bets[np.arange(len(experts.bets)), places[experts.order_of]])

    def _learned(self, value: float) -> Floats:
        place = min(int(value * LEVELS), LEVELS - 1)
        seen = self.learned.sum(axis=1)
        density = LEVELS * (self.learned[:, place] + 1) / (seen + LEVELS)
        self.learned *= KEPT
        self.learned[:, place] += 1
        return np.asarray(np.log(density))

    def take_as_normal(self, symbols: Ints) -> None:
        """Compare with images of these symbols instead of the reference's."""
        self.counts = self.experts.count(symbols)

    def begin_anew(self) -> None:
        """Drop all evidence; what is normal stays known."""
        self.evidence[:] = -np.inf
        self.peak[:] = 0.0
        self.since[:] = self.images
        self.learned[:] = 0.0

    def forget(self, symbols: Ints) -> None:
        """Take back symbols that were learned as normal and turned out not to be."""
        self.counts -= self.experts.count(symbols)
