"""``bench.json``: the results of ``edgekit bench`` for one bundle.

docs/benchmarking.md describes every key. A key changes its meaning only with the number of its
schema.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from edgekit.bench.conditions import Conditions
from edgekit.bench.interleaved import Comparison, Latency, Ratio
from edgekit.bench.options import BenchOptions
from edgekit.bench.results import (
    LatencyResult,
    Layers,
    Scenarios,
    Start,
    ThroughputResult,
)
from edgekit.bundle.store import Bundle
from edgekit.core.documents import SPARSE, Document, parse_json, read
from edgekit.runtime.selftest import Proof

FILE: Final = "bench.json"
OWN: Final = "bundle"
"""The bundle's name among the models timed with it."""
REMEDY: Final = "run 'edgekit bench' on the bundle again"


@dataclass(frozen=True)
class BundleFacts:
    """Which bundle was measured."""

    path: str
    identity: str
    target: str
    backend: str
    precision: str
    size_bytes: int


@dataclass(frozen=True)
class Gap:
    """Something that could not be measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class DeviceName:
    """The device that measured, as registered."""

    name: str
    host: str


@dataclass(frozen=True)
class Throughput:
    """The headline figures of `ThroughputResult`."""

    images_per_second: float
    streams: int
    images: int


@dataclass(frozen=True)
class BenchSummary(Document):
    """The manifest's section ``bench``: the headline figures."""

    SCHEMA: ClassVar = 1

    batch: int | None = field(default=None, metadata=SPARSE)
    runtime: Mapping[str, str | int] | None = field(default=None, metadata=SPARSE)
    cores: int | None = field(default=None, metadata=SPARSE)
    candidate: str | None = field(default=None, metadata=SPARSE)
    latencies: Mapping[str, Latency] | None = field(default=None, metadata=SPARSE)
    ratios: Mapping[str, Ratio] | None = field(default=None, metadata=SPARSE)
    turns: int | None = field(default=None, metadata=SPARSE)
    warmup_calls: int | None = field(default=None, metadata=SPARSE)
    drift: float | None = field(default=None, metadata=SPARSE)
    throughput: Throughput | None = field(default=None, metadata=SPARSE)
    cold_start_ms: Mapping[Start, float] | None = field(default=None, metadata=SPARSE)
    peak_memory_mib: Mapping[Start, float | None] | None = field(default=None, metadata=SPARSE)
    device: DeviceName | None = field(default=None, metadata=SPARSE)

    @staticmethod
    def from_dict(value: object, source: str) -> BenchSummary:
        """A section; ``source`` is what error messages call it."""
        return read(BenchSummary, value, source, schema=BenchSummary.SCHEMA, remedy=REMEDY)

    @property
    def own(self) -> Latency | None:
        """The bundle's latency, if it was measured."""
        return (self.latencies or {}).get(self.candidate or OWN)


@dataclass(frozen=True)
class MeasurementBeside:
    """A measurement that is not the bundle's evidence, and why it is not."""

    measured: str
    why: str
    where: str
    settings: BenchOptions
    summary: BenchSummary


@dataclass(frozen=True)
class BenchDocument(Document):
    """One bundle's measurement, beside its float original."""

    SCHEMA: ClassVar = 2

    edgekit: str
    measured: str
    bundle: BundleFacts
    settings: BenchOptions
    conditions: Conditions
    runtime: Mapping[str, str | int]
    self_test: Proof | None
    scenarios: Scenarios
    layers: Layers | None
    not_measured: tuple[Gap, ...]
    notes: tuple[str, ...]
    # Later additions; older documents lack them.
    device: DeviceName | None = field(default=None, metadata=SPARSE)
    """Where it was measured; None means the machine that wrote the document."""
    looks: int = 1
    """All measurements of this bundle so far, including this one."""
    beside: tuple[MeasurementBeside, ...] = ()

    @staticmethod
    def from_dict(value: object, source: str) -> BenchDocument:
        """A bench.json; ``source`` is what error messages call it."""
        return read(BenchDocument, value, source, schema=BenchDocument.SCHEMA, remedy=REMEDY)

    @property
    def where(self) -> str:
        """The place of the measurement, in words."""
        machine = f"{self.conditions.machine}, {self.conditions.cores.usable} cores"
        return machine if self.device is None else f"{self.device.name}: {machine}"

    def summary(self) -> BenchSummary:
        """The headline figures."""
        latency, throughput = self.scenarios.latency, self.scenarios.throughput
        starts, memory = self.scenarios.cold_start, self.scenarios.memory
        timed = BenchSummary()
        if latency is not None:
            cores = self.conditions.cores.usable
            timed = latency_summary(latency, self.runtime, batch=latency.images, cores=cores)
        headline = None
        if throughput is not None:
            own = throughput.own
            headline = Throughput(own.images_per_second, own.streams, own.images)
        return dataclasses.replace(
            timed,
            throughput=headline,
            cold_start_ms=None
            if starts is None
            else {name: start.median_ms for name, start in starts.items()},
            peak_memory_mib=None
            if memory is None
            else {name: used.peak_mib for name, used in memory.items()},
            device=self.device,
        )


@dataclass(frozen=True)
class BundleComparison:
    """Several bundles compared with the first."""

    candidate: str
    conditions: Conditions
    runtimes: Mapping[str, Mapping[str, str | int]]
    latency: LatencyResult | None = field(default=None, metadata=SPARSE)
    throughput: ThroughputResult | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True)
class BenchReport(Document):
    """What the command prints: a document per bundle, and their comparison."""

    SCHEMA: ClassVar = BenchDocument.SCHEMA

    bundles: tuple[BenchDocument, ...]
    comparison: BundleComparison | None

    @staticmethod
    def from_dict(value: object, source: str) -> BenchReport:
        """The command's ``--json``; ``source`` is what error messages call it."""
        if isinstance(value, Mapping) and isinstance(value.get("bundles"), list):
            for entry in value["bundles"]:
                BenchDocument.from_dict(entry, source)  # each has a schema of its own
        return read(BenchReport, value, source, schema=BenchReport.SCHEMA, remedy=REMEDY)


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """Identifies the measured bundle in a document."""
    manifest = bundle.manifest
    return BundleFacts(
        path=str(bundle.path),
        identity=manifest.identity(),
        target=manifest.target.name,
        backend=manifest.target.backend,
        precision=manifest.target.precision,
        size_bytes=sum(entry.size for entry in manifest.files.values()),
    )


def read_bench(bundle: Bundle) -> BenchDocument | None:
    """The evidence of a bundle, or None."""
    if FILE not in bundle.manifest.files:
        return None
    source = f"{bundle.path}: {FILE}"
    return BenchDocument.from_dict(parse_json((bundle.folder / FILE).read_bytes(), source), source)


def read_summary(bundle: Bundle) -> BenchSummary | None:
    """The manifest's headline figures, or None."""
    section = bundle.manifest.sections.get("bench")
    if section is None:
        return None
    return BenchSummary.from_dict(section, f"{bundle.path}: its manifest's section 'bench'")


def latency_summary(
    timed: Comparison | LatencyResult,
    runtime: Mapping[str, str | int],
    *,
    batch: int,
    cores: int | None,
) -> BenchSummary:
    """What the manifest keeps of a comparison of latencies."""
    return BenchSummary(
        batch=batch,
        runtime=runtime,
        cores=cores,
        candidate=timed.candidate,
        latencies=timed.latencies,
        ratios=timed.ratios,
        turns=timed.turns,
        warmup_calls=timed.warmup_calls,
        drift=timed.drift,
    )
