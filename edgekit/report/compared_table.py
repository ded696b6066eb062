"""A comparison of two on a terminal: what differs, the facts, the figures, and doubts."""

from __future__ import annotations

import re
from typing import Final

from edgekit.core.console import Console
from edgekit.core.tables import Column, Table
from edgekit.report.compared import ComparedReport, Difference, Figure, Measured
from edgekit.report.sizes import megabytes

DIFFERENCES: Final = Table.of(Column("", "prose"), Column("A", "prose"), Column("B", "prose"))
FIGURES: Final = Table.of(
    Column("", "prose"),
    Column("A", "figure"),
    Column("B", "figure"),
    Column("difference", "figure"),
)
_HASH: Final = re.compile("[0-9a-f]{64}")
_DIGITS: Final = 12  # of a hash; --json has all
_RELATIVE: Final = ("bytes", "ms", "images/s", "MiB")


def show(console: Console, report: ComparedReport) -> None:
    """Print it; only paths and names may need more than 80 columns."""
    console.prose(headline(report))
    if report.identical:
        return
    console.text(f"A  {report.a}\nB  {report.b}")
    if report.differences:
        console.table(DIFFERENCES, [_difference(one) for one in report.differences])
    figures = [one for one in report.figures if console.verbosity > 0 or not one.detail]
    if figures:
        console.table(FIGURES, [_figure(one) for one in figures])
    for note in report.notes:
        console.prose(note)
    if len(figures) < len(report.figures):
        console.info("-v shows the error under each corruption")


def headline(report: ComparedReport) -> str:
    """What differs, in one line."""
    if report.identical:
        all_of = "model, files and evidence" if report.kind == "bundles" else "settings and results"
        return f"identical: the same {all_of}"
    same = "what runs" if report.kind == "bundles" else "the result"
    first = f"{same} is the same; different" if report.same_model else "different"
    return f"{first}: {', '.join(report.differ)}"


def _difference(one: Difference) -> list[str]:
    name = f"{one.subject}: {one.name}" if one.name else one.subject
    return [name, *(_value(value) for value in (one.a, one.b))]


def _value(value: str | None) -> str:
    if value is None:
        return "-"
    return value[:_DIGITS] if _HASH.fullmatch(value) else value


def _figure(one: Figure) -> list[str]:
    unit = "" if one.unit in ("", "bytes") else f", {one.unit}"
    return [one.name + unit, _measured(one, one.a), _measured(one, one.b), _gap(one)]


def _measured(one: Figure, value: Measured | None) -> str:
    if value is None:
        return "-"
    sign = "+" if one.unit == "points" else ""
    text = _number(value.value, one.unit, sign)
    if value.lower is None or value.upper is None:
        return text
    ends = (_number(end, one.unit, sign) for end in (value.lower, value.upper))
    return f"{text} [{', '.join(ends)}]"


def _gap(one: Figure) -> str:
    if one.difference is None or one.a is None:
        return "-"
    if one.difference == 0:
        return "same"
    text = _number(one.difference, one.unit, "+")
    if one.unit not in _RELATIVE or one.a.value == 0:
        return text
    return f"{text} ({100 * one.difference / one.a.value:+.1f}%)"


def _number(value: float, unit: str, sign: str = "") -> str:
    if unit == "bytes":
        mark = "-" if value < 0 else sign
        return mark + megabytes(round(abs(value)))
    if isinstance(value, int):  # a count
        return f"{value:{sign},}"
    return f"{value:{sign}.2f}"
