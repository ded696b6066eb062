"""Latency against corruption error: what can be had for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.report.figures.svg import (
    AXIS,
    Scale,
    around,
    axis,
    dot,
    figure,
    hover,
    line,
    number,
    text,
)

_TOP, _BOTTOM, _LEFT = 30.0, 270.0, 11.0


@dataclass(frozen=True)
class Choice:
    """A model that one could ship."""

    mark: str
    """A letter or two, which stand beside its point."""
    name: str
    latency_ms: float
    error: float
    lower: float
    upper: float
    """The interval of the error, as far as it is known: that of its change."""
    own: bool = True
    """A bundle, not a float model beside it."""


def pareto(choices: Sequence[Choice], label: str) -> str:
    """A point for each; those that another beats in both respects are hollow."""
    across = around([one.latency_ms for one in choices], 0.1, left=_LEFT, right=95.0)
    ends = [end for one in choices for end in (one.lower, one.upper, one.error)]
    range_ = around(ends, 0.1)
    up = Scale(range_.low, range_.high, _BOTTOM, _TOP)
    parts = [
        axis(across, _BOTTOM, "median latency, ms", top=_TOP),
        text(0, 14, label, kind="quiet"),
    ]
    for tick in up.ticks():
        y = up.at(tick)
        parts += [
            line(_LEFT, y, 95, y, "rule"),
            text(_LEFT - 1.5, y + 4, number(tick), anchor="end", kind="quiet"),
        ]
    for one in choices:
        x, y = across.at(one.latency_ms), up.at(one.error)
        color = "series-1" if one.own else "even"
        words = f"{one.name}: {one.latency_ms:.2f} ms, {one.error:.2f}"
        parts.append(
            hover(
                words,
                line(x, up.at(one.lower), x, up.at(one.upper), color, width=2),
                dot(x, y, color, radius=5, filled=not _beaten(one, choices)),
                text(x, y - 9, one.mark, kind="strong", dx=6),
            )
        )
    note = (
        "Left and low is better; a hollow point is beaten in both by another. The bars are the "
        "interval of the change against the reference. "
        + "; ".join(f"{one.mark} {one.name}" for one in choices)
        + "."
    )
    return figure("Latency against corruption error", _BOTTOM + AXIS, parts, note=note)


def _beaten(one: Choice, choices: Sequence[Choice]) -> bool:
    return any(
        other.latency_ms < one.latency_ms and other.error < one.error
        for other in choices
        if other is not one
    )
