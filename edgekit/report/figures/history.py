"""One model on one target, built again and again: error and latency by date."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.report.figures.svg import (
    Scale,
    around,
    dot,
    figure,
    hover,
    line,
    number,
    text,
)

_LEFT, _RIGHT = 14.0, 94.0
_HEAD, _TALL, _FOOT = 36.0, 84.0, 28.0  # of a panel: its label, its values, the builds' marks


@dataclass(frozen=True)
class Moment:
    """What is known of one build."""

    mark: str
    """Of its column."""
    date: str
    error: tuple[float, float, float] | None
    """With the interval of its change."""
    latency_ms: float | None


def history(title: str, moments: Sequence[Moment]) -> str:
    """A panel for each figure that two builds have; evenly spaced, in the order of their dates."""
    ordered = sorted(moments, key=lambda one: one.date)
    across = Scale(0, len(ordered) - 1, _LEFT + 4, _RIGHT - 4)
    parts: list[str] = []
    top = 0.0
    for label, values in (
        ("corruption error", [one.error for one in ordered]),
        ("median latency, ms", [_alone(one.latency_ms) for one in ordered]),
    ):
        if sum(value is not None for value in values) > 1:
            parts += _panel(label, ordered, values, across, top)
            top += _HEAD + _TALL + _FOOT
    if not parts:
        return ""
    dates = "; ".join(f"{one.mark} built {one.date}" for one in ordered)
    note = f"From the oldest build to the newest: {dates}. Lower is better."
    return figure(title, top, parts, note=note)


def _alone(value: float | None) -> tuple[float, float, float] | None:
    return None if value is None else (value, value, value)


def _panel(
    label: str,
    moments: Sequence[Moment],
    values: Sequence[tuple[float, float, float] | None],
    across: Scale,
    top: float,
) -> list[str]:
    known = [
        (across.at(place), one, value)
        for place, (one, value) in enumerate(zip(moments, values, strict=True))
        if value is not None
    ]
    low, high = top + _HEAD, top + _HEAD + _TALL
    range_ = around([end for _, _, value in known for end in value], 0.15)
    up = Scale(range_.low, range_.high, high, low)
    parts = [
        text(0, top + 14, label, kind="quiet"),
        line(_LEFT, high, _RIGHT, high, "even"),
    ]
    for tick in up.ticks(3):
        y = up.at(tick)
        parts += [
            line(_LEFT, y, _RIGHT, y, "rule"),
            text(_LEFT - 1.5, y + 4, number(tick), anchor="end", kind="quiet"),
        ]
    for (x1, _, before), (x2, _, after) in itertools.pairwise(known):
        parts.append(line(x1, up.at(before[0]), x2, up.at(after[0]), "series-1", width=2))
    for x, one, (value, lower, upper) in known:
        words = f"{one.mark}, {one.date}: {label} {value:.2f}"
        parts.append(
            hover(
                words,
                line(x, up.at(lower), x, up.at(upper), "series-1", width=2),
                dot(x, up.at(value), "series-1"),
                text(x, high + 15, one.mark, anchor="middle", kind="strong"),
            )
        )
    return parts
