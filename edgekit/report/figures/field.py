"""Small multiples of a monitor's last images over the lab's: codewords, and how clear they were."""

from __future__ import annotations

import datetime

from edgekit.field.history import FieldAgainstLab, Usage
from edgekit.report.figures.svg import box, figure, hover, line, text

_ROW, _TALL, _TOP = 84.0, 52.0, 6.0
_USAGE, _MARGINS = (2.0, 74.0), (79.0, 97.0)  # percent of the width


def field(found: FieldAgainstLab) -> str:
    """A row for the lab and one for each part of the field, to one scale."""
    rows = (found.lab, *found.field)
    most = max(max((*row.usage, row.others)) for row in rows) or 1.0
    widest = max(max(row.margins) for row in rows) or 1.0
    names = [f"{found.kind} {code}" for code in found.codes]
    if any(row.others > 0 for row in rows):
        names.append("all others")
    places = [f"quarter {number + 1} of the margin" for number in range(len(found.lab.margins))]
    parts = []
    for number, row in enumerate(rows):
        base = _TOP + _ROW * (number + 1) - 8
        parts.append(text(_USAGE[0], base - _TALL - 10, _title(row), kind="strong"))
        color = "even" if row is found.lab else "series-2" if row.changed else "series-1"
        usage, lab = (*row.usage, row.others), (*found.lab.usage, found.lab.others)
        parts += _bars(names, usage, lab, _USAGE, base, most, color)
        parts += _bars(places, row.margins, found.lab.margins, _MARGINS, base, widest, color)
    one = "Codewords" if found.kind == "code" else "Classes"
    note = (
        f"{one} in the lab's order, and right of them quarters of the margin, the least clear "
        "first. Behind the field's bars, pale: the lab. In the second color: images that came "
        "after an alarm."
    )
    return figure("The field against the lab", _TOP + _ROW * len(rows), parts, note=note)


def _title(row: Usage) -> str:
    if row.first is None or row.last is None:
        return f"lab: {row.images:,} clean images"
    return f"{_clock(row.first)} to {_clock(row.last)} UTC: {row.images:,} images"


def _clock(seconds: float) -> str:
    """Seconds since 1970, from a file, and so any number."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"second {seconds:.0f}"
    return when.strftime("%Y-%m-%d %H:%M")


def _bars(
    names: list[str],
    shares: tuple[float, ...],
    lab: tuple[float, ...],
    between: tuple[float, float],
    base: float,
    most: float,
    color: str,
) -> list[str]:
    left, right = between
    step = (right - left) / len(names)
    parts = []
    for place, (name, share, usual) in enumerate(zip(names, shares, lab, strict=False)):
        x, pale, tall = left + step * place, _TALL * usual / most, _TALL * share / most
        words = f"{name}: {share:.1%}, in the lab {usual:.1%}"
        parts.append(
            hover(
                words,
                box(x, base - pale, 0.9 * step, pale, "even", strength=0.3),
                box(x + 0.2 * step, base - tall, 0.5 * step, tall, color),
            )
        )
    return [*parts, line(left, base, right, base, "rule")]
