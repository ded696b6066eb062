"""Latency of one model, or of several that take turns, so drift affects all alike.

A turn lasts a fraction of a second rather than one call: right after another runtime's call, the
cores are busy with that runtime's waiting threads, and the data is gone from the caches. The first
calls of a turn are not counted.

Callers pass plain functions; this module knows no runtime and imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edgekit.core.documents import SPARSE
from edgekit.core.errors import UsageError

Run = Callable[[], object]

_TURN_SECONDS: Final = 0.15
_TURN_CALLS: Final = 3
_SETTLE_SECONDS: Final = 0.03  # not counted at the start of a turn; at least one call
_BINS: Final = 24


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call, over ``calls`` calls."""

    calls: int
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    mean_ms: float
    jitter_ms: float
    """Mean absolute difference between consecutive calls."""
    median_low_ms: float | None = field(default=None, metadata=SPARSE)
    median_high_ms: float | None = field(default=None, metadata=SPARSE)
    """The 95% interval of the turns' median; calls of one turn are no independent evidence."""


@dataclass(frozen=True)
class Histogram:
    """Calls by latency: ``counts[i]`` lie in [``edges_ms[i]``, ``edges_ms[i + 1]``)."""

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]
    above: int
    """Calls slower than the last edge, which is where 99% of the calls end."""

    def __post_init__(self) -> None:
        """Require a bar to draw, and an edge on either side of each."""
        if not any(self.counts) or min(self.counts) < 0:
            raise UsageError("a histogram counts at least one call")
        if len(self.edges_ms) != len(self.counts) + 1:
            raise UsageError("a histogram's edges do not fit its counts")


@dataclass(frozen=True)
class Ratio:
    """How many times faster the candidate was, turn by turn: the median and its 95% interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class WarmUp:
    """Calls that were not counted because latency was still changing."""

    calls: int
    seconds: float
    stable: bool
    """Whether latency settled before the time ran out."""


@dataclass(frozen=True)
class Comparison:
    """Latencies by name, and the ratios other / candidate."""

    candidate: str
    latencies: dict[str, Latency]
    histograms: dict[str, Histogram]
    ratios: dict[str, Ratio]
    turns: int
    warmups: dict[str, WarmUp]
    drift: float  # candidate's median of the last third over that of the first third

    @property
    def warmup_calls(self) -> int:
        """Uncounted calls of all models."""
        return sum(warmup.calls for warmup in self.warmups.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "warmup_calls": self.warmup_calls}


def time_in_turns(
    candidate: str,
    runs: Mapping[str, Run],
    *,
    seconds: float = 4.0,
    minimum: int = 6,
    between: Callable[[], object] = lambda: None,
) -> Comparison:
    """Time ``runs`` in turns for about ``seconds`` in all, but at least ``minimum`` turns each.

    ``between`` is called between turns; its own time is not counted.
    """
    patience = max(1.0, seconds / 4)
    warmups = {name: warm_up(run, most_seconds=patience) for name, run in runs.items()}
    turns: dict[str, list[list[float]]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(turns[candidate]) < minimum:
        for name, run in runs.items():
            turns[name].append(_turn(run, settle=len(runs) > 1))
            between()
    flat = {name: [value for turn in these for value in turn] for name, these in turns.items()}
    medians = {name: [statistics.median(turn) for turn in these] for name, these in turns.items()}
    return Comparison(
        candidate=candidate,
        latencies={
            name: _with_interval(summarize(values), medians[name]) for name, values in flat.items()
        },
        histograms={name: histogram(values) for name, values in flat.items()},
        ratios={
            name: ratio(values, medians[candidate])
            for name, values in medians.items()
            if name != candidate
        },
        turns=len(turns[candidate]),
        warmups=warmups,
        drift=drift(flat[candidate]),
    )


def summarize(milliseconds: list[float]) -> Latency:
    """The usual quantiles; each is a measured value."""
    ordered = sorted(milliseconds)

    def quantile(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    steps = [abs(b - a) for a, b in itertools.pairwise(milliseconds)]
    return Latency(
        calls=len(ordered),
        median_ms=statistics.median(ordered),
        p90_ms=quantile(0.90),
        p95_ms=quantile(0.95),
        p99_ms=quantile(0.99),
        min_ms=ordered[0],
        max_ms=ordered[-1],
        mean_ms=statistics.fmean(ordered),
        jitter_ms=statistics.fmean(steps) if steps else 0.0,
    )


def _with_interval(latency: Latency, medians: list[float]) -> Latency:
    """The latency with the interval that its turns' medians give; it includes the median."""
    low, high = _median_limits(medians)
    return dataclasses.replace(
        latency,
        median_low_ms=min(low, latency.median_ms),
        median_high_ms=max(high, latency.median_ms),
    )


def histogram(milliseconds: list[float], bins: int = _BINS) -> Histogram:
    """Equal bins from the fastest call to the 99th percentile; slower calls are counted apart."""
    ordered = sorted(milliseconds)
    low = ordered[0]
    high = ordered[math.ceil(0.99 * len(ordered)) - 1]
    if high <= low:
        return Histogram((low, low), (len(ordered),), 0)
    width = (high - low) / bins
    counts = [0] * bins
    inside = [value for value in ordered if value <= high]
    for value in inside:
        counts[min(bins - 1, int((value - low) / width))] += 1
    edges = (*tuple(low + width * index for index in range(bins)), high)
    return Histogram(edges, tuple(counts), len(ordered) - len(inside))


def ratio(other: list[float], own: list[float]) -> Ratio:
    """Median of the paired ratios other / own, with a distribution-free 95% interval."""
    ratios = [a / b for a, b in zip(other, own, strict=True)]
    return Ratio(statistics.median(ratios), *_median_limits(ratios))


def _median_limits(values: list[float]) -> tuple[float, float]:
    """A distribution-free 95% interval of the median.

    The interval's ends are order statistics: of n values, fewer than k lie below the median with
    the probability P(Bin(n, 1/2) < k), so the k-th from either end enclose it with at least 95%
    if that is at most 2.5%. Fewer than six pairs cannot do that; then the ends are the extremes.
    """
    ordered = sorted(values)
    rank = max(1, _rank(len(ordered)))
    return ordered[rank - 1], ordered[-rank]


def _rank(count: int) -> int:
    """The greatest k with P(Bin(count, 1/2) < k) <= 2.5%; 0 if there is none."""
    below, rank = 0.0, 0
    log_half = count * math.log(0.5)
    for successes in range(count // 2 + 1):
        ways = math.lgamma(count + 1) - math.lgamma(successes + 1)
        below += math.exp(ways - math.lgamma(count - successes + 1) + log_half)
        if below > 0.025:
            break
        rank = successes + 1
    return rank


def drift(values: list[float]) -> float:
    """Median of the last third over that of the first third; 1.0 means no drift."""
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) / statistics.median(values[:third])


def warm_up(run: Run, *, most_seconds: float) -> WarmUp:
    """Call until the medians of three consecutive windows lie within 5%, or time runs out.

    A window takes at least five calls and 50 ms.
    """
    start = time.monotonic()
    medians: list[float] = []
    calls = 0
    while True:
        times = window(run, seconds=0.05, calls=5)
        calls += len(times)
        medians.append(statistics.median(times))
        latest = medians[-3:]
        stable = len(latest) == 3 and max(latest) <= 1.05 * min(latest)
        if stable or time.monotonic() - start > most_seconds:
            return WarmUp(calls, time.monotonic() - start, stable)


def _turn(run: Run, *, settle: bool) -> list[float]:
    if settle:
        window(run, seconds=_SETTLE_SECONDS, calls=1)
    return window(run, seconds=_TURN_SECONDS, calls=_TURN_CALLS)


def window(run: Run, *, seconds: float, calls: int) -> list[float]:
    """Milliseconds of as many calls as fill ``seconds``, but at least ``calls``."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < calls or time.monotonic() < end:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times
