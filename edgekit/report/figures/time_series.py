"""Latency over a sustained run, from zero."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from edgekit.bench.results import Point
from edgekit.report.figures.svg import Scale, axis, figure, hover, line, number, text

_TOP, _BOTTOM, _LEFT = 26.0, 186.0, 11.0


def time_series(points: Sequence[Point]) -> str:
    """The median of each interval, and the 95th percentile."""
    longest = max(point.seconds for point in points) / 60 or 1.0
    most = max(max(point.median_ms, point.p95_ms) for point in points) or 1.0
    across, up = Scale(0.0, longest, _LEFT, 97.0), Scale(0.0, most, _BOTTOM, _TOP)
    parts = [
        axis(across, _BOTTOM, "minutes", top=_TOP),
        text(0, 14, "latency, ms", kind="quiet"),
    ]
    for tick in up.ticks(4):
        y = up.at(tick)
        parts += [
            line(_LEFT, y, 97, y, "rule"),
            text(_LEFT - 1.5, y + 4, number(tick), anchor="end", kind="quiet"),
        ]
    for color, dashed, values in (
        ("series-2", True, [point.p95_ms for point in points]),
        ("series-1", False, [point.median_ms for point in points]),
    ):
        places = [
            (across.at(point.seconds / 60), up.at(value))
            for point, value in zip(points, values, strict=True)
        ]
        for (x1, y1), (x2, y2) in itertools.pairwise(places):
            parts.append(line(x1, y1, x2, y2, color, width=2, dashed=dashed))
    wide = 86.0 / len(points)
    for point in points:
        words = f"{point.seconds / 60:.1f} min: {point.median_ms:.2f} ms, p95 {point.p95_ms:.2f} ms"
        x = across.at(point.seconds / 60)
        parts.append(hover(words, line(x, _TOP, x, _BOTTOM, "none", width=max(1.0, wide))))
    note = "Solid: the median of each interval. Dashed: its 95th percentile."
    return figure("Latency over time", _BOTTOM + 40, parts, note=note)
