"""What the figures are drawn with: scales, ticks, and shapes as inline SVG.

A figure is as wide as its place. Along x everything is in percent of that and along y in pixels, so
text keeps its size on a telephone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgekit.report.markup import escaped

LEFT: Final = 35.0  # percent of the width that names of rows take
RIGHT: Final = 97.0
_LONGEST_NAME: Final = 18  # letters that fit there on the narrowest screen


@dataclass(frozen=True)
class Scale:
    """Values to places between two percentages of the width."""

    low: float
    high: float
    left: float = LEFT
    right: float = RIGHT
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Percent of the width; what lies outside is put on the edge."""
        low, high, value = (self._of(one) for one in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + (self.right - self.left) * min(1.0, max(0.0, share))

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.logarithmic else value

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the scale, about ``count`` of them."""
        if self.logarithmic:
            first, last = (math.floor(self._of(one)) for one in (self.low, self.high))
            every = max(1, math.ceil((last - first) / count))
            powers = [10.0**power for power in range(first, last + 1, every)]
            return [power for power in powers if self.low <= power <= self.high]
        step = _round_step((self.high - self.low) / max(1, count))
        begin = math.ceil(self.low / step)
        ticks = [step * (begin + index) for index in range(2 * count + 2)]
        return [tick for tick in ticks if tick <= self.high + 1e-9 * step]


def around(
    values: Sequence[float], margin: float = 0.05, *, left: float = LEFT, right: float = RIGHT
) -> Scale:
    """A scale that has all of these values, and some room."""
    low, high = min(values), max(values)
    room = margin * (high - low) or 0.5 * abs(high) or 1.0
    return Scale(low - room, high + room, left, right)


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, about ``rough`` or more."""
    if not rough > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * unit for unit in (1, 2, 5, 10) if power * unit >= 0.85 * rough)


def figure(title: str, height: float, parts: Sequence[str], *, note: str = "") -> str:
    """A figure with its caption; ``note`` says how to read it."""
    small = f"<small>{escaped(note)}</small>" if note else ""
    label = f"{title}. {note}" if note else title
    return (
        f"<figure><figcaption>{escaped(title)}{small}</figcaption>"
        f'<svg role="img" aria-label="{escaped(label)}" width="100%" height="{height:.0f}">'
        f"{''.join(parts)}</svg></figure>"
    )


def axis(scale: Scale, y: float, label: str, *, top: float, ticks: int = 5) -> str:
    """An axis at ``y`` with faint lines up to ``top``, and its label below."""
    parts = [
        line(scale.left, y, scale.right, y, "even"),
        text((scale.left + scale.right) / 2, y + 32, label, anchor="middle", kind="quiet"),
    ]
    for tick in scale.ticks(ticks):
        x = scale.at(tick)
        parts.append(line(x, top, x, y + 4, "rule"))
        parts.append(text(x, y + 17, number(tick), anchor=anchor(x), kind="quiet"))
    return "".join(parts)


def anchor(x: float, edge: float = 5.0) -> str:
    """Which end of a text stands at ``x``, so that it stays inside the figure."""
    return "start" if x < edge else "end" if x > 100 - edge else "middle"


AXIS: Final = 40.0
"""Pixels that an axis takes below its line."""


def number(value: float) -> str:
    """A tick's value, as short as it is exact; a true minus sign."""
    text = f"{0.0 if abs(value) < 1e-12 else value:.6g}"
    if 1e-12 <= abs(value) < 1e-3:  # 1e-4: neighbors of 0.0001 and of 1e-05 touch on a phone
        mantissa, power = f"{value:.5e}".split("e")
        text = f"{float(mantissa):g}e{int(power)}"
    return text.replace("-", "\N{MINUS SIGN}") if "e" not in text else text


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def name(value: str) -> str:
    """A row's name, cut where it would not fit; give the whole one as a `hover`."""
    plain = value.replace("_", " ")
    cut = len(plain) > _LONGEST_NAME
    return plain[: _LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}" if cut else plain


def text(
    x: float, y: float, content: str, *, anchor: str = "start", kind: str = "", dx: float = 0
) -> str:
    """A text; ``kind`` is one of quiet, small and strong, or several."""
    attributes = f' class="{kind}"' if kind else ""
    if anchor != "start":
        attributes += f' text-anchor="{anchor}"'
    if dx:
        attributes += f' dx="{dx:g}"'
    return f'<text x="{x:.2f}%" y="{y:.1f}"{attributes}>{escaped(content)}</text>'


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    color: str,
    *,
    width: float = 1,
    dashed: bool = False,
) -> str:
    """A straight line in a color of the style sheet."""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}" '
        f'style="stroke:var(--{color})" stroke-width="{width:g}"{dashes}/>'
    )


def box(
    x: float, y: float, width: float, height: float, color: str, *, strength: float = 1.0
) -> str:
    """A filled rectangle; ``strength`` from 0 to 1 mixes it with the page."""
    faint = "" if strength >= 1 else f' fill-opacity="{max(0.0, strength):.3f}"'
    return (
        f'<rect x="{x:.2f}%" y="{y:.1f}" width="{max(0.0, width):.2f}%" height="{height:.1f}" '
        f'style="fill:var(--{color})"{faint}/>'
    )


def dot(x: float, y: float, color: str, *, radius: float = 4, filled: bool = True) -> str:
    """A point; one that is not filled stands for what is not certain."""
    inside = color if filled else "page"
    return (
        f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="{radius:g}" stroke-width="2" '
        f'style="fill:var(--{inside});stroke:var(--{color})"/>'
    )


def hover(content: str, *parts: str) -> str:
    """Parts that tell more when the pointer rests on them."""
    return f"<g><title>{escaped(content)}</title>{''.join(parts)}</g>"
