"""Answers as the rows of a table in CSV: what there is not is an empty cell."""

from __future__ import annotations

from typing import Final

from edgekit.runtime.model import Prediction

_HEAD: Final = (
    "image",
    "label",
    "index",
    "probability",
    "code",
    "margin",
    "milliseconds",
    "error",
)


def csv_head(top: int) -> list[str]:
    """The names of the columns; the second best label and those after it come last."""
    ranks = range(2, top + 1)
    return [*_HEAD, *(f"{what}_{rank}" for rank in ranks for what in ("label", "probability"))]


def csv_row(answer: Prediction, top: int) -> list[str]:
    """The answer for one image."""
    row = [
        answer.source,
        answer.label or "",
        _text(answer.index),
        _text(answer.probability),
        _text(answer.code),
        _text(answer.margin),
        _text(answer.milliseconds),
        answer.error or "",
    ]
    for label, probability in answer.top[1:top]:
        row += [label, _text(probability)]
    # A model may have fewer classes than were asked for.
    return row + [""] * (len(csv_head(top)) - len(row))


def _text(value: float | tuple[float | None, ...] | None) -> str:
    """A number; a model that quantizes every position has one for each, apart by spaces."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join("-" if one is None else f"{one:.6g}" for one in value)
    return str(value) if isinstance(value, int) else f"{value:.6g}"
