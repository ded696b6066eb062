"""The change of the mean error, with its interval, against the tolerance."""

from __future__ import annotations

from edgekit.parity.document import MeanError
from edgekit.report.figures.svg import (
    AXIS,
    anchor,
    around,
    axis,
    box,
    dot,
    figure,
    hover,
    line,
    signed,
    text,
)

_MIDDLE, _BOTTOM = 40.0, 62.0


def gauge(error: MeanError, tolerance: float) -> str:
    """One interval on an axis; what lies right of the tolerance is too much."""
    scale = around([error.lower, error.upper, 0.0, tolerance], 0.12, left=3.0, right=97.0)
    limit, zero = scale.at(tolerance), scale.at(0.0)
    interval = f"[{signed(error.lower)}, {signed(error.upper)}]"
    parts = [
        axis(scale, _BOTTOM, "change of the corruption error, points", top=16),
        box(limit, 18, scale.right - limit, _BOTTOM - 18, "worse", strength=0.14),
        line(limit, 14, limit, _BOTTOM, "limit", width=2, dashed=True),
        line(zero, 18, zero, _BOTTOM, "ink"),
        text(limit, 10, f"tolerance {tolerance:g}", anchor=anchor(limit, 20.0)),
        hover(
            f"{signed(error.delta)} points, {error.confidence:.0%} interval {interval}",
            line(
                scale.at(error.lower), _MIDDLE, scale.at(error.upper), _MIDDLE, "series-1", width=4
            ),
            dot(scale.at(error.delta), _MIDDLE, "series-1", radius=6),
        ),
    ]
    note = f"{error.confidence:.0%} interval. Zero is the reference; right of it is worse."
    return figure("Change of the corruption error", _BOTTOM + AXIS, parts, note=note)
