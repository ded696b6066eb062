"""Stops as soon as the data decide, however often they are examined.

An ordinary 95% interval examined after every batch is wrong far more often than 5% of the time.
A *confidence sequence* holds at all looks at once, so a run may stop whenever it likes.

The sequence here is by betting (Waudby-Smith and Ramdas, JRSS-B 2024). To show that the mean
score is below m, start with a capital of 1 and bet, image after image, a share of it that the
score is below m: the capital is multiplied by ``1 + stake * ((bound - score) / (bound - m) - 1)``.
If the mean is m or more, no betting scheme ever has more than a 1 in 40 chance of reaching 40
(Ville's inequality), whatever the scores' distribution; so a capital of 40 refutes m. The upper
limit is the smallest refuted m; the lower limit is the same game with the signs turned.

The capital is spread over a few fixed stakes at the start. That needs no tuning, depends neither
on the order of the scores nor on the batches, and serves both extremes: large stakes win soonest
when the models hardly differ, small ones when flips are frequent and the margin is thin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.metrics.verdicts import Outcome

Floats = npt.NDArray[np.float64]

# Shares of the capital put at risk, and how the starting capital is spread over them: more on the
# large stakes, because deciding early is worth most when there are few images.
_STAKES: Floats = np.asarray([0.99 / 3**i for i in range(6)])
_SPREAD: Floats = np.sqrt(_STAKES) / np.sqrt(_STAKES).sum()
_PRECISION = 1e-4  # of the bound: how finely the limits are found (0.01 points of 100)


@dataclass(frozen=True)
class SequentialState:
    """Where a run stands: the interval holds for all looks together, the outcome never flips."""

    images: int
    estimate: float  # points
    lower: float
    upper: float
    outcome: Outcome

    @property
    def decided(self) -> bool:
        """Whether the run may stop."""
        return self.outcome != "undecided"


class SequentialDelta:
    """An anytime-valid interval for the mean of per-image scores, compared with a tolerance.

    Scores and tolerance are in points, every score within [-``bound``, ``bound``] (see
    `score_bound`). Images must arrive in an order that has nothing to do with their scores: a
    random permutation of the data set.

    Without ``population`` the interval is about images like these, as an ordinary interval is.
    With it, it is about the mean over exactly that many images, drawn without replacement: what
    the full run on this set would print. That is known after fewer images, and claims less. It
    needs every image's complete score, not one from a sample of its cells.
    """

    def __init__(
        self,
        tolerance: float,
        alpha: float = 0.05,
        population: int | None = None,
        bound: float = 100.0,
    ) -> None:
        if not 0 < alpha < 1:
            raise UsageError(f"an error rate of {alpha} is not between 0 and 1: use 0.05")
        if not -bound < tolerance < bound:
            raise UsageError(
                f"a tolerance of {tolerance:g} points decides nothing: mCE can only change by "
                f"{bound:g} points"
            )
        self._tolerance = tolerance
        self._threshold = math.log(2 / alpha)  # each side errs with probability alpha / 2
        self._population = population
        self._bound = bound
        self._scores: Floats = np.empty(0)
        self._lower, self._upper = -bound, bound

    def update(self, batch_scores: Floats) -> SequentialState:
        """Add the scores of further images; returns where the run stands."""
        batch = np.asarray(batch_scores, dtype=np.float64).reshape(-1)
        if np.isnan(batch).any() or (np.abs(batch) > self._bound * (1 + 1e-9)).any():
            raise EdgekitError(
                f"a score is NaN or outside [-{self._bound:g}, {self._bound:g}] points"
            )
        self._scores = np.concatenate((self._scores, batch))
        if self._population is not None and len(self._scores) > self._population:
            raise EdgekitError(
                f"{len(self._scores)} scores were given for a set of {self._population} images"
            )
        if len(self._scores) == self._population:
            self._lower = self._upper = float(self._scores.mean())
        elif len(batch):
            upper = self._improved(self._upper, sign=-1)
            lower = -self._improved(-self._lower, sign=1)
            # Limits that cross are among the 5%: all means are refuted. Keep the last interval.
            if lower <= upper:
                self._lower, self._upper = lower, upper
        return self.state()

    def state(self) -> SequentialState:
        """Where the run stands."""
        n = len(self._scores)
        estimate = float(self._scores.mean()) if n else 0.0
        outcome: Outcome = "undecided"
        if self._upper <= self._tolerance:
            outcome = "pass"
        elif self._lower > self._tolerance:
            outcome = "fail"
        return SequentialState(n, estimate, self._lower, self._upper, outcome)

    def more_images(self) -> int | None:
        """How many more images should decide, if they are like those so far.

        None if that cannot be estimated: no images yet, or the loss is at the tolerance.
        """
        if self.state().decided:
            return 0
        n = len(self._scores)
        if n == 0:
            return None
        expected = []
        for sign in (-1, 1):
            game = _Game(self._bound + sign * self._scores, None)
            rates = game.log_growth(self._bound + sign * self._tolerance) / n
            if rates.max() > 0:  # each stake keeps winning at its rate
                needed = (self._threshold - np.log(_SPREAD)) / np.where(rates > 0, rates, np.nan)
                expected.append(float(np.nanmin(needed)))
        if not expected or min(expected) > 1e9:
            return None
        more = max(1, math.ceil(min(expected)) - n)
        return more if self._population is None else min(more, self._population - n)

    def _improved(self, limit: float, sign: int) -> float:
        """The smallest upper limit for the mean of ``-sign * scores`` that the capital refutes.

        ``sign`` is -1 for the upper limit of the scores and +1 for that of their negatives. Limits
        only ever shrink: what was refuted once stays refuted.
        """
        wealth = self._bound + sign * self._scores  # never negative, as a bet requires
        game = _Game(wealth, self._population)

        def refuted(mean: float) -> bool:
            return game.log_capital(self._bound - mean) >= self._threshold

        step = self._bound * _PRECISION
        # The tolerance itself first: a verdict must not hang on the search's precision.
        edge = sign * -self._tolerance
        if edge < limit and refuted(edge):
            limit = edge
        if not refuted(limit - step):
            return limit
        low, high = sign * -float(self._scores.mean()), limit - step
        while high - low > step:
            middle = (low + high) / 2
            if refuted(middle):
                high = middle
            else:
                low = middle
        return high


class _Game:
    """Bets that the mean of nonnegative ``wealth`` [n] is larger than a given mean."""

    def __init__(self, wealth: Floats, population: int | None) -> None:
        self._population = population
        self._wealth = wealth
        self._total = float(wealth.sum())
        # Drawn with replacement the order is irrelevant, and most scores are equal (to zero).
        self._values, self._counts = np.unique(wealth, return_counts=True)

    def log_capital(self, mean: float) -> float:
        """Logarithm of the capital won against ``mean``; infinite where it is impossible."""
        if self._population is not None:
            rounding = 1e-9 * (self._total + 1)
            if self._total > self._population * mean + rounding:
                return math.inf
        if mean <= 0:
            return math.inf if self._total > 0 else 0.0
        logs = np.log(_SPREAD) + self.log_growth(mean)
        top = float(logs.max())
        return top + math.log(float(np.exp(logs - top).sum()))

    def log_growth(self, mean: float) -> Floats:
        """Logarithm of each stake's growth against ``mean`` > 0: [stakes]."""
        if self._population is None:
            gain = self._values / mean - 1
            return np.asarray(np.log1p(np.multiply.outer(_STAKES, gain)) @ self._counts)
        # Without replacement: what the images still to come must average if the mean holds.
        n = len(self._wealth)
        before = np.cumsum(self._wealth) - self._wealth
        left = (self._population * mean - before) / (self._population - np.arange(n))
        gain = self._wealth / np.maximum(left, 1e-12) - 1
        return np.asarray(np.log1p(np.multiply.outer(_STAKES, gain)).sum(axis=1))


def score_bound(weights: Floats) -> float:
    """The largest possible score in points.

    The same for all cells of an image and for equally many severities of every corruption, because
    a corruption's severities weigh the same.
    """
    return float(weights.sum())


def sequential_scores(
    difference: npt.NDArray[np.int8], weights: Floats, measured: npt.NDArray[np.bool_] | None = None
) -> Floats:
    """Scores of images, each with the mean ΔmCE: ``difference`` [images, C, S] -> [images], points.

    ``weights`` [C, S] as from `intervals.cell_weights`. ``measured`` marks the cells that an image
    went through, drawn by `Cells.sample`; they stand for all of its cells.
    """
    images, cells = len(difference), weights.size
    flat = difference.reshape(images, cells)
    if measured is None:
        return np.asarray(flat @ weights.reshape(cells), dtype=np.float64)
    mask = measured.reshape(images, cells)
    taken = mask.sum(axis=1)
    if (taken == 0).any():
        raise EdgekitError("an image without any evaluated cell cannot be scored")
    return np.asarray(np.where(mask, flat, 0) @ weights.reshape(cells) * cells / taken)


def fewest_images_to_pass(tolerance: float, bound: float = 100.0, alpha: float = 0.05) -> int:
    """Images after which two models that never differ pass: no run can pass on fewer.

    About ``3.7 * bound / tolerance``: until then, one image in that many could be lost completely.
    A set smaller than this cannot stop early with a pass.
    """
    if not 0 < tolerance < bound:
        raise UsageError(f"a tolerance of {tolerance:g} points cannot be shown to hold")
    gain = np.log1p(_STAKES * (bound / (bound - tolerance) - 1))

    def capital(images: int) -> float:
        return float(_SPREAD @ np.exp(np.minimum(images * gain, 700.0)))

    low, high = 0, 1
    while capital(high) < 2 / alpha:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if capital(middle) >= 2 / alpha else (middle, high)
    return high
