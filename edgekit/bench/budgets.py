"""What a measurement says about budgets: each figure with its interval, where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgekit.bench.baseline import FLOAT_OPENVINO, FLOAT_ORT
from edgekit.bench.document import BenchDocument, BenchSummary, BundleComparison
from edgekit.bench.interleaved import Ratio
from edgekit.bench.results import Scenarios
from edgekit.metrics.budgets import Budgets, Judged, Measured, judge

SLOWDOWN: Final = 1.05
"""Times an earlier bundle's latency, unless the user says otherwise: a shared machine's noise
between two bundles that take turns is one or two percent, and a change that users notice is not."""

_MB_PER_MIB: Final = 2**20 / 1e6


def judge_bench(
    budgets: Budgets, document: BenchDocument, comparison: BundleComparison | None
) -> tuple[Judged, ...]:
    """A row for each budget that a measurement decides about.

    ``comparison`` is that with an earlier bundle.
    """
    scenarios = document.scenarios
    found = {
        "max_latency_ratio": latency_ratio(document.summary()),
        "max_ms": _median(document.summary()),
        "max_mb": size(document.bundle.size_bytes),
        "max_memory_mb": _memory(scenarios),
        "max_cold_start_ms": _cold_start(scenarios),
        "max_slowdown": _slowdown(comparison),
    }
    missing = _missing(document)
    return tuple(
        judge(name, limit, found[name], missing[name])
        for name, limit in budgets.given()
        if name in found
    )


def latency_ratio(summary: BenchSummary) -> Measured | None:
    """The bundle's latency over that of the faster float model; None without one."""
    ratios = summary.ratios or {}
    times = {
        name: _inverse(ratios[name], name) for name in (FLOAT_ORT, FLOAT_OPENVINO) if name in ratios
    }
    # The one whose upper bound is largest: what holds against it holds against both.
    return max(times.values(), key=lambda one: one.upper or 0.0, default=None)


def size(size_bytes: int) -> Measured:
    """Megabytes, of a million bytes."""
    return Measured(size_bytes / 1e6)


def _inverse(ratio: Ratio, of: str) -> Measured:
    """``ratio`` says how many times faster the bundle was: the other way round."""
    return Measured(1 / ratio.median, 1 / ratio.high, 1 / ratio.low, of)


def _slowdown(comparison: BundleComparison | None) -> Measured | None:
    ratios = {} if comparison is None or comparison.latency is None else comparison.latency.ratios
    times = [_inverse(ratio, f"against {name}") for name, ratio in ratios.items()]
    return times[0] if len(times) == 1 else None


def _median(summary: BenchSummary) -> Measured | None:
    own = summary.own
    return None if own is None else Measured(own.median_ms, own.median_low_ms, own.median_high_ms)


def _memory(scenarios: Scenarios) -> Measured | None:
    """The most that any kind of start took, with what it took on a GPU."""
    used = [
        Measured(_MB_PER_MIB * (one.peak_mib + (one.gpu_mib or 0.0)), of=_STARTS[name])
        for name, one in (scenarios.memory or {}).items()
        if one.peak_mib is not None
    ]
    return max(used, key=lambda one: one.value, default=None)


def _cold_start(scenarios: Scenarios) -> Measured | None:
    """The slower kind of start.

    The range of five processes encloses their median with 94%: 1 - 2 * 0.5^5.
    """
    starts = [
        Measured(one.median_ms, one.min_ms, one.max_ms, _STARTS[name])
        for name, one in (scenarios.cold_start or {}).items()
    ]
    return max(starts, key=lambda one: one.upper or 0.0, default=None)


_STARTS: Final = {"first": "the first start", "later": "later starts"}


def _missing(document: BenchDocument) -> Mapping[str, str]:
    """Why a figure is missing, if it is."""
    without = "the scenario '{}' was not measured"
    latency = without.format("latency")
    if document.settings.compare:
        latency += " for each bundle: leave --compare out"
    floats = latency
    if document.scenarios.latency is not None:
        floats = "; ".join(f"{gap.what}: {gap.why}" for gap in document.not_measured)
        floats = floats or "no float model took turns with it"
    memory = without.format("memory")
    if document.scenarios.memory is not None:
        memory = "this system does not report it"
    return {
        "max_latency_ratio": floats,
        "max_ms": latency,
        "max_mb": "",
        "max_memory_mb": memory,
        "max_cold_start_ms": without.format("cold-start"),
        "max_slowdown": latency,
    }
