"""How sure a parity figure is: paired intervals, clustered by image.

The unit of all statistics is the image. An image contributes one score, the weighted sum over
its cells of (candidate wrong) - (reference wrong), so that the mean score over images is the
difference of the two mCEs in points. Pairing takes the images' difficulty out of the difference;
clustering keeps the cells of one image, which are not independent, from counting as evidence
75 times.

Scores are mostly exactly zero (the two models agree), and what is not zero is skewed. A normal
interval is too short there, and has no width at all when nothing differed. See `mean_interval`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.metrics.corruption_error import (
    Baseline,
    alexnet_error,
    averaged_corruptions,
    check_baseline,
)

Floats = npt.NDArray[np.float64]

_DRAWS = 20_000  # of the maximum's distribution: its 95% quantile is then good to 0.3% in level


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, from ``images`` independent images."""

    estimate: float
    lower: float
    upper: float
    images: int


@dataclass(frozen=True)
class CorruptionDeltas:
    """One interval per corruption, in points; all hold at once with the requested confidence."""

    intervals: dict[str, Interval]
    critical: float  # the max-t critical value that replaces 1.96

    def worst(self) -> list[str]:
        """Corruptions, the one that lost most first."""
        return sorted(self.intervals, key=lambda name: -self.intervals[name].estimate)


@dataclass(frozen=True, eq=False)
class PairedErrors:
    """What two models did to the same images: ``difference`` is int8 [images, C, S].

    An entry is (candidate wrong) - (reference wrong), in {-1, 0, 1}. ``measured`` (bool, the same
    shape) is None when every image went through every cell; which cells of an image were left
    out must not depend on the outcome.
    """

    difference: npt.NDArray[np.int8]
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    baseline: Baseline
    measured: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.corruptions), len(self.severities))
        if self.difference.ndim != 3 or self.difference.shape[1:] != shape:
            raise EdgekitError(
                f"paired errors of shape {self.difference.shape} do not fit "
                f"{shape[0]} corruptions x {shape[1]} severities"
            )
        if len(self.difference) < 2:
            raise UsageError("parity needs at least two images to say how sure it is")
        if np.abs(self.difference).max(initial=0) > 1:
            raise EdgekitError("a paired error is not -1, 0 or 1")
        if self.measured is not None and self.measured.shape != self.difference.shape:
            raise EdgekitError("the mask of measured cells does not fit the paired errors")
        empty = np.argwhere(self.images_per_cell() == 0)
        if len(empty):
            corruption, severity = empty[0]
            raise UsageError(
                f"no image was evaluated for {self.corruptions[corruption]} severity "
                f"{self.severities[severity]}: evaluate it or leave it out"
            )

    def images_per_cell(self) -> npt.NDArray[np.int64]:
        """Evaluated images of each cell: [C, S]."""
        if self.measured is None:
            return np.full(self.difference.shape[1:], len(self.difference), dtype=np.int64)
        return np.asarray(self.measured.sum(axis=0), dtype=np.int64)


def corruption_weights(
    corruptions: tuple[str, ...], severities: tuple[int, ...], baseline: Baseline
) -> Floats:
    """Points that one error in one cell adds to its corruption's figure: [C, S]."""
    check_baseline(baseline, severities)
    own = [alexnet_error(name) if baseline == "alexnet" else 1.0 for name in corruptions]
    column = 100 / (np.asarray(own)[:, None] * len(severities))
    return np.asarray(np.broadcast_to(column, (len(corruptions), len(severities))))


def cell_weights(
    corruptions: tuple[str, ...], severities: tuple[int, ...], baseline: Baseline
) -> Floats:
    """Points that one error in one cell adds to the mCE: [C, S], zero for the extras.

    ``sum(weights * (candidate errors - reference errors))`` is the difference of the two mCEs, and
    the mean over the averaged corruptions of their differences.
    """
    averaged = averaged_corruptions(corruptions)
    counts = np.asarray([name in averaged for name in corruptions]) / len(averaged)
    return corruption_weights(corruptions, severities, baseline) * counts[:, None]


def delta_interval(paired: PairedErrors, confidence: float = 0.95) -> Interval:
    """The difference of the two mCEs (candidate minus reference, points) with its interval."""
    weights = cell_weights(paired.corruptions, paired.severities, paired.baseline)
    scores, spread, largest = _image_scores(paired.difference, paired.measured, weights)
    return mean_interval(scores, largest, confidence, spread=spread)


def corruption_deltas(
    paired: PairedErrors, confidence: float = 0.95, seed: int = 0
) -> CorruptionDeltas:
    """Each corruption's difference in points, with intervals that hold simultaneously (max-t).

    The critical value is the quantile of the largest of the standardized deltas' absolute values,
    drawn from a normal distribution with the correlation between corruptions that the images
    show. It lies between 1.96 (all corruptions move together) and Bonferroni's value.
    """
    weights = corruption_weights(paired.corruptions, paired.severities, paired.baseline)
    columns = [
        _image_scores(
            paired.difference[:, c],
            None if paired.measured is None else paired.measured[:, c],
            weights[c],
        )
        for c in range(len(paired.corruptions))
    ]
    critical = _max_t_critical(np.stack([scores for scores, _, _ in columns], 1), confidence, seed)
    intervals = {
        name: _interval(scores, largest, critical, spread)
        for name, (scores, spread, largest) in zip(paired.corruptions, columns, strict=True)
    }
    return CorruptionDeltas(intervals, critical)


def mean_interval(
    scores: Floats,
    largest: float,
    confidence: float = 0.95,
    *,
    spread: float | None = None,
) -> Interval:
    """Interval for the mean of independent scores in [-``largest``, ``largest``], mostly zero.

    The sums of the positive and of the negative scores are each treated as a weighted Poisson sum
    and given the mid-P gamma limits of Fay and Feuer (1997), which are skewed as they should be;
    Zou and Donner's rule (MOVER, 2008) combines the two into limits of the difference. With many
    scores this is the usual interval estimate ± 1.96 sd/√n. With few it is longer, as it is with
    a few that outweigh the rest (Student's quantile replaces 1.96). If all are zero it is
    the rule of three, ± 3.7 · largest / n: it always has a width.

    ``spread`` replaces the scores' own standard deviation where part of that is the design's.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence of {confidence} is not between 0 and 1: use 0.95")
    return _interval(scores, largest, _normal_quantile(confidence), spread)


def agreement_interval(per_image: Floats, confidence: float = 0.95) -> Interval:
    """Interval for a mean agreement from each image's agreement in [0, 1]."""
    if np.isnan(per_image).any():
        raise EdgekitError("an image's agreement is NaN: it was not evaluated")
    loss = mean_interval(1.0 - per_image, 1.0, confidence)
    return Interval(
        1 - loss.estimate, 1 - min(loss.upper, 1.0), 1 - max(loss.lower, 0.0), loss.images
    )


def _image_scores(
    difference: npt.NDArray[np.int8], measured: npt.NDArray[np.bool_] | None, weights: Floats
) -> tuple[Floats, float, float]:
    """Scores whose mean is the weighted delta, their spread, and the largest possible score.

    ``difference`` and ``measured`` are [images, ...cells], ``weights`` [...cells]. A cell that only
    part of the images went through weighs ``images / images of the cell`` more in each of them.
    The spread is that of the scores less their expectation given which cells were measured (the
    linearized ratio), so that it has no part that the design put there.
    """
    images = len(difference)
    flat, points = difference.reshape(images, -1), weights.reshape(-1)
    if measured is None:
        scores = np.asarray(flat @ points, dtype=np.float64)
        return scores, float(scores.std()), float(points.sum())
    mask = measured.reshape(images, -1)
    per_cell = mask.sum(axis=0)
    boosted = points * images / per_cell
    masked = np.where(mask, flat, np.int8(0))
    scores = np.asarray(masked @ boosted, dtype=np.float64)
    expected = mask @ (boosted * (masked.sum(axis=0) / per_cell))
    return scores, float((scores - expected).std()), float((mask @ boosted).max())


def _interval(scores: Floats, largest: float, z: float, spread: float | None) -> Interval:
    n = len(scores)
    if n < 2:
        raise UsageError("parity needs at least two images to say how sure it is")
    if np.isnan(scores).any():
        raise EdgekitError("an image's score is NaN: it was not evaluated")
    z = _student(z, min(n - 1, _freedom(scores)))
    gained, lost = np.maximum(-scores, 0), np.maximum(scores, 0)
    total, squares = float(np.abs(scores).sum()), float((scores * scores).sum())
    differing = int(np.count_nonzero(scores))
    # Fay and Feuer's limits imagine one more event. How large? As those seen; but a handful of
    # small ones does not rule out that the next is the largest possible, which counts as one.
    typical = squares / total if differing else 0.0
    imagined = (largest + differing * typical) / (differing + 1)
    lost_low, lost_high = _sum_limits(lost, imagined, z)
    gained_low, gained_high = _sum_limits(gained, imagined, z)
    lost_sum, gained_sum = float(lost.sum()), float(gained.sum())
    # A Poisson sum's variance is the sum of squares; the mean's own square must be subtracted.
    # The floor gives scores that are all equal a width: again the rule of three.
    shrink = 1.0
    if differing:
        variance = float(scores.var()) if spread is None else spread**2
        shrink = math.sqrt(min(1.0, max(variance * n / squares, 4 / (differing + 4))))
    below = shrink * math.hypot(lost_sum - lost_low, gained_high - gained_sum)
    above = shrink * math.hypot(lost_high - lost_sum, gained_sum - gained_low)
    mean = (lost_sum - gained_sum) / n
    return Interval(mean, max(mean - below / n, -largest), min(mean + above / n, largest), images=n)


def _sum_limits(parts: Floats, imagined: float, z: float) -> tuple[float, float]:
    """Mid-P gamma limits of the expectation of a weighted Poisson sum."""
    total, squares = float(parts.sum()), float((parts * parts).sum())
    more, more_squares = total + imagined, squares + imagined**2
    high = _gamma_quantile(more, more_squares, z)
    if total == 0:
        return 0.0, high
    low = _gamma_quantile(total, squares, -z)
    # Fay and Feuer's limits are too long; those without the imagined event, too short.
    mid_low = (low + _gamma_quantile(more, more_squares, -z)) / 2
    mid_high = (high + _gamma_quantile(total, squares, z)) / 2
    return min(mid_low, total), mid_high


def _gamma_quantile(mean: float, variance: float, z: float) -> float:
    """Quantile of the gamma distribution of this mean and variance (Wilson and Hilferty, 1931)."""
    ninth = variance / (9 * mean * mean)
    return mean * max(1 - ninth + z * math.sqrt(ninth), 0.0) ** 3


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _freedom(scores: Floats) -> float:
    """Degrees of freedom of the sum of squares: few where a few large scores make up most of it.

    Scores of equal size leave no doubt about it beyond their number, which the Poisson limits
    account for; so the doubt counted here (Satterthwaite) is only that from unequal sizes.
    """
    squares = np.square(scores[scores != 0])
    doubt = float(np.square(squares - squares.mean()).sum()) if len(squares) else 0.0
    return max(4.0, 2 * float(squares.sum()) ** 2 / doubt) if doubt > 0 else math.inf


def _student(z: float, freedom: float) -> float:
    """Student's quantile from the normal one, to 1% from 4 degrees of freedom (Cornish-Fisher)."""
    v = float(freedom)
    first = (z**3 + z) / (4 * v)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v * v)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return z + first + second + third


def _max_t_critical(scores: Floats, confidence: float, seed: int) -> float:
    """Quantile of max |Z| for a normal Z with the columns' correlation: scores [images, C]."""
    centered = scores - scores.mean(axis=0)
    length = np.sqrt((centered * centered).sum(axis=0))
    # A corruption without any difference has no correlation to estimate: take it as independent,
    # which can only make the intervals longer.
    moving = length > 0
    centered[:, moving] /= length[moving]
    correlation = centered.T @ centered
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws = root @ np.random.default_rng(seed).standard_normal((len(root), _DRAWS))
    critical = float(np.quantile(np.abs(draws).max(axis=0), confidence))
    return max(critical, _normal_quantile(confidence))
