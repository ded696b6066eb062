"""How far lookups were from the border to another codeword, where the code held and flipped."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.parity.document import MarginGroup, MarginHistogram, Margins
from edgekit.report.figures.svg import AXIS, Scale, axis, box, figure, hover, line, text

_ROW, _TALL, _TOP = 82.0, 46.0, 4.0
_MERGED = 4  # bins of parity.json to a bar: a quarter of a decade
_LEAST = 1e-9


def margins(found: Margins) -> str:
    """A histogram of each group on one logarithmic axis; older documents have quantiles alone."""
    calls = found.histogram
    groups = (
        ("same code", found.agreeing, None if calls is None else calls.agreeing, "series-1"),
        ("another code", found.flipped, None if calls is None else calls.flipped, "series-2"),
    )
    edges = [] if calls is None else [edge for edge in calls.edges if edge > 0]
    for _, group, _, _ in groups:
        edges += [margin for margin in group.margins or () if margin > 0]
    low, high = max(_LEAST, min(edges, default=1e-3)), max(edges, default=1.0)
    scale = Scale(low, max(high, 1.01 * low), left=2.0, right=97.0, logarithmic=True)
    bottom = _TOP + 2 * _ROW
    label = "margin of the lookup, logarithmic"
    parts = [axis(scale, bottom, label, top=_TOP)]
    for index, (words, group, counts, color) in enumerate(groups):
        base = _TOP + _ROW * (index + 1) - 4
        parts.append(text(2, base - _TALL - 12, _title(words, group, found), kind="strong"))
        if calls is not None and counts is not None:
            parts += _bars(calls, counts, scale, base, color)
        elif group.margins:
            parts += _quantiles(group.margins, scale, base - _TALL / 2, color)
        parts.append(line(scale.left, base, scale.right, base, "rule"))
    note = (
        "Best score less the second best: left is near the border to another codeword. Flips "
        "there are ties broken by rounding, flips far to the right are damage. Each group to its "
        "own height."
    )
    return figure("Margins of the codes", bottom + AXIS, parts, note=note)


def _title(words: str, group: MarginGroup, found: Margins) -> str:
    median = found.median(group)
    middle = "" if median is None else f", median {median:.2g}"
    return f"{words}: {group.count:,} lookups{middle}"


def _bars(
    calls: MarginHistogram, counts: Sequence[int], scale: Scale, base: float, color: str
) -> list[str]:
    starts = range(0, len(counts), _MERGED)
    merged = [sum(counts[start : start + _MERGED]) for start in starts]
    most, total = max(merged) or 1, sum(merged) or 1
    bars = []
    for start, count in zip(starts, merged, strict=True):
        if not count:
            continue
        low = calls.edges[start]
        high = calls.edges[min(start + _MERGED, len(counts))]
        x = scale.at(low)
        width, tall = max(0.4, scale.at(high) - x - 0.25), _TALL * count / most
        words = f"margin {low:.2g} to {high:.2g}: {count:,} lookups, {count / total:.1%}"
        bars.append(hover(words, box(x, base - tall, width, max(1.0, tall), color, strength=0.6)))
    return bars


def _quantiles(values: Sequence[float], scale: Scale, y: float, color: str) -> list[str]:
    middle = len(values) // 2
    first, last = scale.at(values[0]), scale.at(values[-1])
    inner = scale.at(values[middle // 2]), scale.at(values[-1 - middle // 2])
    return [
        line(first, y, last, y, color, width=2),
        box(inner[0], y - 9, inner[1] - inner[0], 18, color, strength=0.4),
        line(scale.at(values[middle]), y - 12, scale.at(values[middle]), y + 12, "ink", width=3),
    ]
