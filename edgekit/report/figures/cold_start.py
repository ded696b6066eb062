"""A cold start as a bar of its phases, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgekit.bench.results import ColdStart, Start
from edgekit.report.figures.stacked import stacked

STARTS: Final[Mapping[Start, str]] = {"first": "compiling", "later": "every later start"}
_PHASES: Final = {
    "start": "interpreter",
    "import": "imports",
    "verify": "checksums",
    "runtime": "the runtime's package",
    "load": "the model",
    "first": "first prediction",
}


def cold_start(starts: Mapping[Start, ColdStart]) -> str:
    """A bar for the start that compiles, and one for every later one."""
    rows = {
        f"{STARTS[name]}: {one.median_ms:.0f} ms": [
            (_PHASES.get(phase, phase), ms) for phase, ms in one.in_order()
        ]
        for name, one in starts.items()
    }
    note = "From starting a process to its first prediction; medians of several processes."
    return stacked("Cold start", rows, "ms", "ms", note)
