"""Shares of equal answers by corruption: classes and codes on one axis."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.report.figures.svg import (
    AXIS,
    LEFT,
    Scale,
    axis,
    dot,
    figure,
    hover,
    line,
    name,
    text,
)

_ROW, _TOP = 21.0, 10.0


def shares(
    classes: Mapping[str, float], codes: Mapping[str, float], least: float | None = None
) -> str:
    """A row for each corruption, the one that loses most codes on top.

    ``least`` is the smallest share of equal codes that a gate allows.
    """
    names = sorted(codes, key=lambda one: (codes[one], one))
    every = [100 * value for found in (classes, codes) for value in found.values()]
    every += [] if least is None else [100 * least]
    low, high = min(every), max(100.0, *every)
    scale = Scale(low - 0.08 * (high - low) - 0.1, high)
    bottom = _TOP + _ROW * len(names)
    parts = [axis(scale, bottom, "equal answers, %", top=_TOP - 4)]
    if least is not None:
        x = scale.at(100 * least)
        parts.append(line(x, _TOP - 4, x, bottom, "limit", width=2, dashed=True))
    for index, one in enumerate(names):
        y = _TOP + _ROW * (index + 0.5)
        marks = [text(LEFT - 2, y + 4, name(one), anchor="end", kind="small")]
        words = f"{one.replace('_', ' ')}: same code {codes[one]:.2%}"
        if one in classes:
            words += f", same class {classes[one]:.2%}"
            marks.append(dot(scale.at(100 * classes[one]), y, "series-2", filled=False))
        marks.append(dot(scale.at(100 * codes[one]), y, "series-1"))
        parts.append(hover(words, *marks))
    note = "Filled: the same code. Hollow: the same class."
    if least is not None:
        note += f" Dashed: the gate's minimum for codes, {least:.1%}."
    return figure("Equal codes and classes by corruption", bottom + AXIS, parts, note=note)
