"""What a gate measured, with the digits that mean something, and the ones that decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_MOST: Final = 6  # decimals


def figures(measured: float, interval: Sequence[float], limit: float) -> list[str]:
    """The measured value and the ends of its interval (or nothing), for people.

    Two digits of the interval's width, or without one three of the value: the others are chance or
    of no interest. More of them where a value would otherwise look like the limit that it is not.
    """
    values = [measured, *interval]
    if not all(map(math.isfinite, values)):
        return [f"{each:.3g}" for each in values]
    size, digits = (max(values) - min(values), 2) if interval else (abs(measured), 3)
    decimals = min(_MOST, max(0, digits - 1 - math.floor(math.log10(size)))) if size > 0 else _MOST
    while decimals < _MOST and any(round(each, decimals) == limit != each for each in values):
        decimals += 1
    # Adding 0 takes the sign from a zero.
    return [f"{round(each, decimals) + 0:.12g}" for each in values]


def in_words(measured: float, interval: Sequence[float], limit: float) -> str:
    """The same as ``0.97 [0.96, 0.99]``."""
    value, *ends = figures(measured, interval, limit)
    return f"{value} [{', '.join(ends)}]" if ends else value
