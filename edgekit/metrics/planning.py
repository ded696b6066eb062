"""How many images a tolerance needs, before anything is measured.

A comparison's interval has a half width of about ``1.96 * spread / sqrt(images)``, where the spread
is the standard deviation of an image's score in points. A model that lost nothing passes nine times
in ten once the tolerance is ``_WIDTHS * spread / sqrt(images)``; docs/parity-statistics.md
has the measured tolerances that this formula reproduces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from edgekit.core.errors import UsageError
from edgekit.metrics.intervals import Interval, mean_interval

_WIDTHS: Final = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.9)
_SMALLEST: Final = 1e-6  # points: nobody has the 10^13 images that decide it
_LARGEST: Final = 100.0  # points: an image lost in every cell


@dataclass(frozen=True)
class Case:
    """A kind of candidate, and what a number of images says about it."""

    name: str
    spread: float | None
    """Standard deviation of an image's score, points; null: no answer ever differs."""

    def decides(self, images: int) -> float:
        """The tolerance, in points, that so many images decide nine times in ten."""
        if self.spread is None:
            return _unseen() / images
        return _WIDTHS * self.spread / math.sqrt(images)

    def images(self, tolerance: float) -> int:
        """How many images decide a tolerance nine times in ten."""
        if self.spread is None:
            return math.ceil(_unseen() / tolerance)
        return max(2, math.ceil((_WIDTHS * self.spread / tolerance) ** 2))


USUAL: Final = Case("usual: 3% of the answers change", 3.1)
UNEVEN: Final = Case("the same, in few of the images", 6.0)
EQUAL: Final = Case("no answer changes", None)
CASES: Final = (USUAL, UNEVEN, EQUAL)


def measured_case(name: str, interval: Interval) -> Case:
    """A candidate like one that was compared, from its interval for a fixed number of images."""
    half = (interval.upper - interval.lower) / 2
    return Case(name, half * math.sqrt(interval.images) / NormalDist().inv_cdf(0.975))


def check_plannable(tolerance: float) -> None:
    """Refuse a tolerance that no number of images decides."""
    if not _SMALLEST <= tolerance < _LARGEST:
        raise UsageError(f"no number of images decides a tolerance of {tolerance:g} points")


def outlook(images: int, tolerance: float) -> str:
    """What a split's test images can decide, in one line."""
    if images < 2:
        return f"parity: {images} test images decide nothing: it takes at least two"
    widest = max(case.decides(images) for case in CASES)
    text = f"parity: {images:,} test images decide to about ±{widest:.2g} points"
    if not _SMALLEST <= tolerance < _LARGEST:
        return text
    fewest, most = (pick(case.images(tolerance) for case in CASES) for pick in (min, max))
    if images >= most:
        return f"{text}: enough for a tolerance of {tolerance:g}"
    return (
        f"{text} (±{USUAL.decides(images):.2g} as INT8 usually goes): {max(fewest - images, 0):,} "
        f"to {most - images:,} more would decide {tolerance:g}"
    )


def _unseen() -> float:
    """The half width, times the number of images, if none of them differed: the rule of three.

    With fewer images Student's quantile makes it a little more, so few are taken.
    """
    images = 200
    return mean_interval(np.zeros(images), _LARGEST).upper * images
