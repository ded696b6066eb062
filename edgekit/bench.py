"""Latency of several models side by side: one call of each in turn, so that drift hits all alike.

Callers hand in plain functions; this module knows no runtime and imports nothing heavy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Run = Callable[[], object]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call, over ``calls`` calls."""

    calls: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float


@dataclass(frozen=True)
class Ratio:
    """How many times faster the candidate was, call by call: the median and its 95% interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Latencies by name, and the ratios other / candidate."""

    candidate: str
    latencies: dict[str, Latency]
    ratios: dict[str, Ratio]
    warmup_calls: int
    drift: float  # candidate's median of the last third over that of the first third

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare(
    candidate: str, runs: Mapping[str, Run], *, seconds: float = 4.0, minimum: int = 20
) -> Comparison:
    """Time ``runs`` in turn for about ``seconds`` in all, but ``minimum`` rounds at least."""
    warmup = _warm_up(list(runs.values()))
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[candidate]) < minimum:
        for name, run in runs.items():
            times[name].append(_milliseconds(run))
    own = times[candidate]
    third = max(1, len(own) // 3)
    return Comparison(
        candidate=candidate,
        latencies={name: summarize(values) for name, values in times.items()},
        ratios={name: ratio(values, own) for name, values in times.items() if name != candidate},
        warmup_calls=warmup,
        drift=statistics.median(own[-third:]) / statistics.median(own[:third]),
    )


def summarize(milliseconds: list[float]) -> Latency:
    """The usual quantiles; each is a value that was measured."""
    ordered = sorted(milliseconds)

    def quantile(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    middle = statistics.median(ordered)
    return Latency(len(ordered), middle, quantile(0.90), quantile(0.99), ordered[0])


def ratio(other: list[float], own: list[float]) -> Ratio:
    """Median of the paired ratios other / own, with a distribution-free 95% interval.

    The interval's ends are order statistics: for n pairs, the ranks n/2 -+ 0.98 sqrt(n) enclose
    the median with 95% (the normal approximation of the binomial's 1.96 sqrt(n) / 2).
    """
    ratios = sorted(a / b for a, b in zip(other, own, strict=True))
    count = len(ratios)
    reach = 0.98 * count**0.5
    low = ratios[max(0, int(count / 2 - reach))]
    high = ratios[min(count - 1, int(count / 2 + reach))]
    return Ratio(statistics.median(ratios), low, high)


def _milliseconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _warm_up(runs: list[Run], most: int = 200) -> int:
    """Run in turn until the last five rounds are within 10% of the five before; how many."""
    totals: list[float] = []
    while len(totals) < most:
        totals.append(sum(_milliseconds(run) for run in runs))
        if len(totals) >= 10:
            before, after = statistics.median(totals[-10:-5]), statistics.median(totals[-5:])
            if abs(after / before - 1) < 0.1:
                break
    return len(totals)
