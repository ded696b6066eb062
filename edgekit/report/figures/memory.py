"""The most memory that a process takes, and what of it the model does not cause."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.bench.results import Memory, Start
from edgekit.report.figures.cold_start import STARTS
from edgekit.report.figures.stacked import stacked


def memory(used: Mapping[Start, Memory]) -> str:
    """A bar up to each peak; "" where the system does not report it."""
    rows = {
        f"{STARTS[name]}: {one.peak_mib:.0f} MiB": _parts(one)
        for name, one in used.items()
        if one.peak_mib is not None
    }
    if not rows:
        return ""
    note = "The peak of a process that loads the bundle and predicts."
    return stacked("Memory", rows, "MiB", "MiB in use at most", note)


def _parts(one: Memory) -> list[tuple[str, float]]:
    peak, runtime = one.peak_mib or 0.0, one.runtime_mib
    if runtime is None or runtime > peak:
        return [("all of it", peak)]
    return [("Python and the runtime", runtime), ("the model", peak - runtime)]
