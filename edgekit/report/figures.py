"""The report's figures, as inline SVG: no script, no font, nothing loaded."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Final

from edgekit.bench.interleaved import Histogram
from edgekit.bench.results import Point
from edgekit.parity.document import CorruptionChange

_WIDTH: Final = 720
_BLUE: Final = "#2f6fb2"
_RED: Final = "#b23a2f"
_GREEN: Final = "#2f8a55"
_GRAY: Final = "#7a8594"


def histogram(calls: Histogram) -> str:
    """Calls by latency."""
    counts, edges = calls.counts, calls.edges_ms
    height, left, bottom = 180, 40, 24
    top = max(counts)
    width = (_WIDTH - left - 10) / len(counts)
    bars = []
    for index, count in enumerate(counts):
        tall = (height - bottom - 14) * count / top
        bars.append(
            f'<rect x="{left + index * width:.1f}" y="{height - bottom - tall:.1f}" '
            f'width="{max(width - 1, 1):.1f}" height="{tall:.1f}" fill="{_BLUE}"/>'
        )
    labels = [
        _label(left, height - 6, f"{edges[0]:.2f} ms"),
        _label(_WIDTH - 10, height - 6, f"{edges[-1]:.2f} ms", anchor="end"),
        _label(left, 10, f"calls by latency; {calls.above} slower than shown"),
    ]
    return _svg(height, [*bars, *labels], "Histogram of latency")


def intervals(changes: Mapping[str, CorruptionChange]) -> str:
    """Change of error for each corruption, with its interval; right of zero is worse."""
    row, left, top = 20, 160, 24
    ends = [value for one in changes.values() for value in (one.lower, one.upper, 0.0)]
    low, high = min(ends), max(ends)
    scale = (_WIDTH - left - 60) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return left + (value - low) * scale

    height = top + row * len(changes) + 10
    parts = [
        f'<line x1="{x(0):.1f}" y1="{top - 6}" x2="{x(0):.1f}" y2="{height}" stroke="{_GRAY}"/>',
        _label(x(0), 12, "0", anchor="middle"),
        _label(_WIDTH - 5, 12, "points worse", anchor="end"),
    ]
    for index, (name, one) in enumerate(changes.items()):
        y = top + row * index + 10
        color = _RED if one.lower > 0 else _GREEN if one.upper < 0 else _BLUE
        parts += [
            _label(left - 8, y + 4, name.replace("_", " "), anchor="end"),
            f'<line x1="{x(one.lower):.1f}" y1="{y}" x2="{x(one.upper):.1f}" y2="{y}" '
            f'stroke="{color}" stroke-width="2"/>',
            f'<circle cx="{x(one.delta):.1f}" cy="{y}" r="4" fill="{color}"/>',
        ]
    return _svg(height, parts, "Change of error by corruption, in points, with 95% intervals")


def time_series(points: Sequence[Point]) -> str:
    """Latency over a sustained run, from zero."""
    height, left, bottom = 180, 40, 24
    longest = max(point.seconds for point in points) or 1.0
    most = max(point.median_ms for point in points) or 1.0
    places = " ".join(
        f"{left + (_WIDTH - left - 10) * point.seconds / longest:.1f},"
        f"{height - bottom - (height - bottom - 20) * point.median_ms / most:.1f}"
        for point in points
    )
    parts = [
        f'<polyline points="{places}" fill="none" stroke="{_BLUE}" stroke-width="1.5"/>',
        f'<line x1="{left}" y1="{height - bottom}" x2="{_WIDTH - 10}" y2="{height - bottom}" '
        f'stroke="{_GRAY}"/>',
        _label(left, 12, f"median latency, up to {most:.2f} ms"),
        _label(_WIDTH - 10, height - 6, f"{longest / 60:.1f} min", anchor="end"),
    ]
    return _svg(height, parts, "Latency over time")


def _svg(height: int, parts: Sequence[str], title: str) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{html.escape(title)}"><title>{html.escape(title)}</title>{body}</svg>'
    )


def _label(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="#1c2430" '
        f'text-anchor="{anchor}">{html.escape(text)}</text>'
    )
