"""The change of error for each corruption, the greatest loss on top."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.parity.document import CorruptionChange, MeanError
from edgekit.report.figures.svg import (
    AXIS,
    LEFT,
    Scale,
    anchor,
    around,
    axis,
    dot,
    figure,
    hover,
    line,
    name,
    signed,
    text,
)

_ROW, _TOP = 22.0, 34.0


def by_loss(changes: Mapping[str, CorruptionChange]) -> list[str]:
    """The corruptions, the greatest loss first."""
    return sorted(changes, key=lambda one: (-changes[one].delta, one))


def intervals(
    changes: Mapping[str, CorruptionChange],
    mean: MeanError | None,
    tolerance: float,
    most: float | None = None,
) -> str:
    """An interval for each, and the mean's; ``most`` is the limit for every single corruption."""
    names = by_loss(changes)
    ends = [end for one in changes.values() for end in (one.lower, one.upper)]
    ends += [0.0, tolerance] + ([] if most is None else [most])
    ends += [] if mean is None else [mean.lower, mean.upper]
    scale = around(ends)
    bottom = _TOP + _ROW * (len(names) + (mean is not None)) + 6
    parts = [axis(scale, bottom, "change of error, points", top=_TOP - 8, ticks=7)]
    zero, limit = scale.at(0.0), scale.at(tolerance)
    parts += [
        line(zero, _TOP - 8, zero, bottom, "ink"),
        line(limit, _TOP - 8, limit, bottom, "limit", width=2, dashed=True),
        text(
            limit,
            24,
            f"tolerance of the mean, {tolerance:g}",
            anchor=anchor(limit, 25.0),
            kind="small",
        ),
    ]
    if most is not None:
        x = scale.at(most)
        parts.append(line(x, _TOP - 20, x, bottom, "worse", width=2, dashed=True))
        parts.append(text(x, 11, f"most for each, {most:g}", anchor="end", kind="small"))
    for index, one in enumerate(names):
        change = changes[one]
        star = "" if change.averaged else "*"
        parts.append(_row(name(one) + star, one, change, _middle(index), scale))
    if mean is not None:
        x = scale.at(mean.delta)
        parts.append(line(x, _TOP - 8, x, bottom, "series-1", dashed=True))
        parts.append(_row("mean", "mean", mean, _middle(len(names)), scale))
    note = (
        "Left of zero: fewer errors than the reference. A filled point is certain to differ from "
        "zero, all intervals together holding with 95%."
    )
    if any(not change.averaged for change in changes.values()):
        note += " * is not part of the mean."
    return figure("Change of error by corruption", bottom + AXIS, parts, note=note)


def _middle(index: int) -> float:
    return _TOP + _ROW * index + _ROW / 2


def _row(
    shown: str, whole: str, change: CorruptionChange | MeanError, y: float, scale: Scale
) -> str:
    color = "worse" if change.lower > 0 else "better" if change.upper < 0 else "even"
    kind = "small strong" if isinstance(change, MeanError) else "small"
    return hover(
        f"{whole.replace('_', ' ')}: {change.reference:.2f} to {change.candidate:.2f}, "
        f"{signed(change.delta)} [{signed(change.lower)}, {signed(change.upper)}] points",
        text(LEFT - 2, y + 4, shown, anchor="end", kind=kind),
        line(scale.at(change.lower), y, scale.at(change.upper), y, color, width=3),
        dot(scale.at(change.delta), y, color, filled=color != "even"),
    )
