"""Errors by corruption and severity as colored cells: a panel for each model or the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from edgekit.report.figures.svg import box, figure, hover, name, signed, text

Kind = Literal["error", "change"]
_ROW, _TOP, _LEFT = 21.0, 40.0, 37.0


def heatmap(
    title: str,
    kind: Kind,
    severities: Sequence[int],
    rows: Mapping[str, Sequence[float]],
    hovers: Mapping[str, Sequence[str]],
    strongest: float,
    *,
    note: str = "",
) -> str:
    """A panel; ``rows`` are percentages or points in the order of ``severities``.

    ``strongest`` is the value of full color, the same for panels that are compared.
    """
    width = (100.0 - _LEFT) / max(1, len(severities))
    parts = [
        text(_LEFT - 2, 30, "corruption", anchor="end", kind="quiet small"),
        text((100 + _LEFT) / 2, 12, "severity", anchor="middle", kind="quiet small"),
    ]
    for column, severity in enumerate(severities):
        x = _LEFT + width * (column + 0.5)
        parts.append(text(x, 30, str(severity), anchor="middle", kind="quiet"))
    for index, (corruption, values) in enumerate(rows.items()):
        top = _TOP + _ROW * index
        full = corruption.replace("_", " ")
        parts.append(
            hover(full, text(_LEFT - 2, top + 14, name(corruption), anchor="end", kind="small"))
        )
        for column, value in enumerate(values[: len(severities)]):
            left = _LEFT + width * column
            label = f"{value:.1f}" if kind == "error" else signed(value, 1)
            words = hovers[corruption]
            parts.append(
                hover(
                    words[column] if column < len(words) else full,
                    box(
                        left + 0.2,
                        top,
                        width - 0.4,
                        _ROW - 2,
                        _color(kind, value),
                        strength=abs(value) / strongest if strongest > 0 else 0.0,
                    ),
                    text(left + width / 2, top + 14, label, anchor="middle", kind="small"),
                )
            )
    return figure(title, _TOP + _ROW * len(rows), parts, note=note)


def _color(kind: Kind, value: float) -> str:
    if kind == "error":
        return "heat"
    return "heat-worse" if value > 0 else "heat-better"
