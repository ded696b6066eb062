"""How long calls took: every contender on one axis, with its p50, p90 and p99."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.bench.interleaved import Histogram, Latency
from edgekit.report.figures.svg import AXIS, Scale, around, axis, box, figure, hover, line, text

_ROW, _TALL, _TOP = 86.0, 40.0, 8.0
_MARKS = (("p50", "median_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"))


def latency(latencies: Mapping[str, Latency], histograms: Mapping[str, Histogram], own: str) -> str:
    """A row for each contender, the bundle first; without its histogram, the quantiles alone."""
    names = sorted(latencies, key=lambda name: name != own)
    ends = [end for name in names for end in (latencies[name].median_ms, latencies[name].p99_ms)]
    for name, calls in histograms.items():
        ends += [calls.edges_ms[0], calls.edges_ms[-1]] if name in latencies else []
    scale = around(ends, 0.03, left=2.0, right=98.0)
    bottom = _TOP + _ROW * len(names)
    parts = [axis(scale, bottom, "latency of one call, ms", top=_TOP)]
    for index, name in enumerate(names):
        top = _TOP + _ROW * index
        color = "series-1" if name == own else "even"
        parts += _row(name, latencies[name], histograms.get(name), scale, top, color)
    note = "Lines: p50, p90 and p99."
    if histograms:
        note = (
            "Bars: calls by latency, each contender's to its own height, up to the 99th "
            f"percentile. {note}"
        )
    return figure("Latency", bottom + AXIS, parts, note=note)


def _row(
    name: str, one: Latency, calls: Histogram | None, scale: Scale, top: float, color: str
) -> list[str]:
    base = top + _ROW - 6
    quantiles = " \N{MIDDLE DOT} ".join(f"{mark} {getattr(one, of):.2f}" for mark, of in _MARKS)
    parts = [
        text(2, top + 13, name, kind="strong"),
        text(2, top + 28, f"{quantiles} ms", kind="quiet"),
    ]
    if calls is not None:
        most = max(calls.counts)
        for low, high, count in zip(calls.edges_ms, calls.edges_ms[1:], calls.counts, strict=False):
            if count:
                x, tall = scale.at(low), _TALL * count / most
                width = max(0.3, scale.at(high) - x - 0.1)
                words = f"{low:.2f} to {high:.2f} ms: {count:,} calls"
                bar = box(x, base - tall, width, tall, color, strength=0.55)
                parts.append(hover(words, bar))
    for mark, of in _MARKS:
        x, value = scale.at(getattr(one, of)), getattr(one, of)
        strong = 3.0 if mark == "p50" else 1.5
        tick = line(x, base - _TALL - 3, x, base, "ink", width=strong, dashed=mark == "p99")
        parts.append(hover(f"{name}: {mark} {value:.2f} ms", tick))
    return [*parts, line(scale.left, base, scale.right, base, "rule")]
