"""The results of each scenario, and the conditions they were measured under.

These are the parts of ``bench.json``; docs/benchmarking.md describes every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from edgekit.bench.interleaved import Histogram, Latency, Ratio, WarmUp
from edgekit.bench.monitor import Energy, WatchSummary
from edgekit.core.documents import SPARSE, plain
from edgekit.core.errors import UsageError

Start = Literal["first", "later"]


@dataclass(frozen=True)
class LatencyResult:
    """Back-to-back inferences, models taking turns."""

    candidate: str
    latencies: Mapping[str, Latency]
    histograms: Mapping[str, Histogram]
    ratios: Mapping[str, Ratio]
    turns: int
    warmups: Mapping[str, WarmUp]
    drift: float
    warmup_calls: int
    in_runtime_ms: Mapping[str, float]
    images: int
    watch: WatchSummary
    energy: Energy
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Require the candidate's own figures."""
        for name in ("latencies", "histograms", "in_runtime_ms"):
            if self.candidate not in getattr(self, name):
                raise UsageError(f"'{name}' does not hold the candidate")


@dataclass(frozen=True)
class Rate:
    """Images per second, over windows of about a second."""

    images_per_second: float
    least: float
    most: float
    windows: int
    streams: int
    images: int


@dataclass(frozen=True)
class ThroughputResult:
    """As many parallel inferences as the runtime has streams."""

    candidate: str
    models: Mapping[str, Rate]
    ratios: Mapping[str, Ratio]
    drift: float
    watch: WatchSummary
    energy: Energy
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Require the candidate's own figures."""
        if self.candidate not in self.models:
            raise UsageError("'models' does not hold the candidate")

    @property
    def own(self) -> Rate:
        """The candidate's rate."""
        return self.models[self.candidate]


PHASES: Final = ("start", "import", "verify", "runtime", "load", "first")
"""Of a cold start, in their order: interpreter started; edgekit and NumPy imported; checksums
verified; the runtime's package imported; the model ready; the first prediction there."""


@dataclass(frozen=True)
class ColdStart:
    """Medians over several processes."""

    processes: int
    median_ms: float
    min_ms: float
    max_ms: float
    phases_ms: Mapping[str, float]
    after_ms: float

    def in_order(self) -> list[tuple[str, float]]:
        """The phases with their times; a JSON document sorts its keys."""
        known = [phase for phase in PHASES if phase in self.phases_ms]
        rest = [phase for phase in self.phases_ms if phase not in PHASES]
        return [(phase, self.phases_ms[phase]) for phase in (*known, *rest)]


@dataclass(frozen=True)
class Memory:
    """Maxima over several processes."""

    processes: int
    runtime_mib: float | None
    loaded_mib: float | None
    used_mib: float | None
    peak_mib: float | None
    gpu_mib: float | None


@dataclass(frozen=True)
class Point:
    """One interval of a sustained run."""

    seconds: float
    calls: int
    median_ms: float
    p95_ms: float
    mhz: float | None
    celsius: float | None
    watts: float | None


@dataclass(frozen=True)
class SustainedResult:
    """Back-to-back inferences as a time series."""

    minutes: float
    images: int
    calls: int
    warmup: WarmUp
    points: tuple[Point, ...]
    drift: float
    fastest_ms: float
    slowest_ms: float
    watch: WatchSummary
    energy: Energy
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Require something to draw."""
        if not self.points:
            raise UsageError("'points' is empty")


@dataclass(frozen=True)
class Scenarios:
    """Results by scenario; None where it was not requested."""

    latency: LatencyResult | None = field(default=None, metadata=SPARSE)
    throughput: ThroughputResult | None = field(default=None, metadata=SPARSE)
    cold_start: Mapping[Start, ColdStart] | None = field(
        default=None, metadata={**SPARSE, "key": "cold-start"}
    )
    memory: Mapping[Start, Memory] | None = field(default=None, metadata=SPARSE)
    sustained: SustainedResult | None = field(default=None, metadata=SPARSE)

    def energies(self) -> dict[str, Energy]:
        """The energy of each scenario that measured it."""
        watched = {
            "latency": self.latency,
            "throughput": self.throughput,
            "sustained": self.sustained,
        }
        return {name: result.energy for name, result in watched.items() if result is not None}

    def notes(self) -> tuple[str, ...]:
        """Caveats for the reader, by scenario."""
        watched = {
            "latency": self.latency,
            "throughput": self.throughput,
            "sustained": self.sustained,
        }
        return tuple(
            f"{name}: {note}"
            for name, result in watched.items()
            if result is not None
            for note in result.notes
        )

    def measured(self) -> frozenset[str]:
        """The measured scenarios, as the command line spells them."""
        return frozenset(plain(self))


@dataclass(frozen=True)
class PartTime:
    """The share of an inference that a part of the network takes."""

    ms: float
    share: float


@dataclass(frozen=True)
class LayerTime:
    """One step of an inference as the runtime executes it."""

    name: str
    kind: str
    milliseconds: float
    part: str
    share: float


@dataclass(frozen=True)
class Layers:
    """Where the time goes, slowest layer first."""

    calls: int
    total_ms: float
    parts: Mapping[str, PartTime]
    parts_from: str
    layers: tuple[LayerTime, ...]
