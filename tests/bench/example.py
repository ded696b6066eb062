"""A bench document by hand, for tests of what is done with one."""

from edgekit.bench.conditions import Conditions, Cores, State
from edgekit.bench.document import BenchDocument, BundleFacts, DeviceName, Gap
from edgekit.bench.interleaved import Histogram, Latency, Ratio, WarmUp
from edgekit.bench.monitor import Energy, Span, WatchSummary
from edgekit.bench.options import BenchOptions
from edgekit.bench.results import (
    ColdStart,
    LatencyResult,
    Layers,
    LayerTime,
    Memory,
    PartTime,
    Point,
    Rate,
    Scenarios,
    SustainedResult,
    ThroughputResult,
)
from edgekit.runtime.selftest import Proof, SelfTestReport

WATCH = WatchSummary(10.0, Span(2600.0, 2500.0, 2400.0, 2700.0), None, 0, 0.01)
ENERGY = Energy(
    available=True,
    source="RAPL: package-0",
    joules=20.0,
    watts=2.0,
    millijoules_per_inference=1.0,
    millijoules_per_image=1.0,
)
NO_ENERGY = Energy(available=False, why="no counters")
LATENCY = Latency(100, 1.0, 1.1, 1.2, 1.3, 0.9, 1.5, 1.05, 0.02)
WARM = WarmUp(20, 0.5, stable=True)
CONDITIONS = Conditions(
    host="host",
    board=None,
    cpu="EPYC",
    arch="x86_64",
    cores=Cores(8, 8, None),
    virtual=True,
    system="Debian",
    kernel="6.1",
    memory_mib=16384,
    governor="performance",
    driver=None,
    mhz_range=(1000.0, 3000.0),
    boost=True,
    power_mode=None,
    gpu_driver=None,
    l4t=None,
    versions={"python": "3.11"},
    before=State(2600.0, {"coretemp Core 0": 40.0}, 0, 0.5),
)


def document(
    settings: BenchOptions | None = None,
    *,
    baselines: tuple[str, ...] = (),
    turns: int = 20,
    device: DeviceName | None = None,
) -> BenchDocument:
    """What a run with these settings leaves; every figure is made up."""
    settings = settings or BenchOptions()
    return BenchDocument(
        edgekit="1.0",
        measured="2026-01-01T00:00:00Z",
        bundle=BundleFacts("build/cpu", "ab" * 32, "cpu", "openvino", "int8", 10_000_000),
        settings=settings,
        conditions=CONDITIONS,
        runtime={"runtime": "openvino 1", "threads": 2, "batch": 1},
        self_test=Proof(8, repeatable=True, spread=0.0, stored=SelfTestReport(4, 0.0, 4, 4, 4)),
        scenarios=_scenarios(settings, baselines, turns),
        layers=Layers(
            50,
            1.0,
            {"backbone": PartTime(1.0, 1.0)},
            "the graph",
            (LayerTime("conv", "Convolution", 1.0, "backbone", 1.0),),
        )
        if settings.layers
        else None,
        not_measured=(Gap("float, OpenVINO", "not installed"),),
        notes=("latency: it rose",),
        device=device,
    )


def _scenarios(settings: BenchOptions, baselines: tuple[str, ...], turns: int) -> Scenarios:
    names = ("bundle", *baselines)
    ratios = dict.fromkeys(baselines, Ratio(2.0, 1.9, 2.1))
    start = ColdStart(5, 500.0, 480.0, 520.0, {"start": 20.0, "first": 480.0}, 1.0)
    used = Memory(1, 50.0, 80.0, 90.0, 100.0, None)
    every = Scenarios(
        latency=LatencyResult(
            candidate="bundle",
            latencies=dict.fromkeys(names, LATENCY),
            histograms=dict.fromkeys(names, Histogram((0.9, 1.1, 1.3), (60, 40), 1)),
            ratios=ratios,
            turns=turns,
            warmups=dict.fromkeys(names, WARM),
            drift=1.0,
            warmup_calls=20 * len(names),
            in_runtime_ms={"bundle": 0.9},
            images=1,
            watch=WATCH,
            energy=ENERGY,
            notes=("it rose",),
        ),
        throughput=ThroughputResult(
            candidate="bundle",
            models={"bundle": Rate(1000.0, 990.0, 1010.0, 10, 2, 1)},
            ratios={},
            drift=1.0,
            watch=WATCH,
            energy=NO_ENERGY,
            notes=(),
        ),
        cold_start={"first": start, "later": start},
        memory={"first": used, "later": used},
        sustained=SustainedResult(
            minutes=settings.minutes,
            images=1,
            calls=1000,
            warmup=WARM,
            points=(Point(0.0, 500, 1.0, 1.1, 2600.0, None, 2.0),) * 2,
            drift=1.0,
            fastest_ms=1.0,
            slowest_ms=1.1,
            watch=WATCH,
            energy=NO_ENERGY,
            notes=(),
        ),
    )
    chosen = {name.replace("-", "_") for name in settings.scenarios}
    return Scenarios(**{name: getattr(every, name) for name in chosen})
