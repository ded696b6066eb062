"""Rows of segments in their order, numbered, on one axis: the form of several figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.report.figures.svg import AXIS, Scale, axis, box, figure, hover, text

_ROW, _TOP = 52.0, 6.0
_COLORS = ("series-1", "series-2", "series-3", "even")


def stacked(
    title: str, rows: Mapping[str, Sequence[tuple[str, float]]], unit: str, label: str, note: str
) -> str:
    """``rows`` are named segments by row, which is named with its total where that is known."""
    order = list(dict.fromkeys(name for segments in rows.values() for name, _ in segments))
    totals = [sum(max(0.0, size) for _, size in segments) for segments in rows.values()]
    scale = Scale(0.0, max(totals, default=0.0) or 1.0, left=1.0, right=96.0)
    bottom = _TOP + _ROW * len(rows)
    parts = [axis(scale, bottom, label, top=_TOP)]
    for index, (row, segments) in enumerate(rows.items()):
        top = _TOP + _ROW * index
        parts.append(text(1, top + 14, row, kind="strong"))
        begun = 0.0
        for name, size in segments:
            x, place = scale.at(begun), order.index(name)
            begun += max(0.0, size)
            width = scale.at(begun) - x
            color = _COLORS[place % len(_COLORS)]
            drawn = [box(x, top + 20, max(0.25, width - 0.3), 24, color, strength=0.4)]
            if width > 4.5:
                drawn.append(text(x + width / 2, top + 36, str(place + 1), anchor="middle"))
            parts.append(hover(f"{name}: {size:.0f} {unit}", *drawn))
    legend = "; ".join(f"{place + 1} {name}" for place, name in enumerate(order))
    return figure(title, bottom + AXIS, parts, note=f"{note} {legend}.".strip())
