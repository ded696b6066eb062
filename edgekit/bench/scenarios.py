"""The scenarios timed in this process: latency, throughput, and latency under sustained load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bench import interleaved
from edgekit.bench.interleaved import Run
from edgekit.bench.monitor import Energy, Watch
from edgekit.bench.results import LatencyResult, Point, Rate, SustainedResult, ThroughputResult
from edgekit.core.threads import result_of, submit
from edgekit.runtime.model import Model

_WINDOW_SECONDS: Final = 1.0
_POINTS: Final = 240  # of a sustained run's time series, at most


class Timed:
    """Calls a model and keeps how long each call took according to the runtime."""

    def __init__(self, model: Model, images: NDArray[np.uint8]) -> None:
        self._model = model
        self._images = images
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Run the model once."""
        self.seconds.append(self._model.run(self._images).seconds)


def latency(
    candidate: str,
    runs: Mapping[str, Run],
    *,
    images: int,
    seconds: float,
    rails: Sequence[str] = (),
) -> LatencyResult:
    """Back-to-back inferences of ``images``, several models taking turns.

    Energy is measured for one model alone; with several it cannot be attributed to one of them.
    """
    watch = Watch(rails=rails)
    comparison = interleaved.time_in_turns(candidate, runs, seconds=seconds, between=watch.look)
    watch.finish()
    calls = comparison.latencies[candidate].calls + comparison.warmup_calls
    energy = watch.energy(calls, calls * images)
    if len(runs) > 1 and energy.available:
        energy = Energy(available=False, why="several models took turns: use --baseline none")
    return LatencyResult(
        candidate=candidate,
        latencies=comparison.latencies,
        histograms=comparison.histograms,
        ratios=comparison.ratios,
        turns=comparison.turns,
        warmups=comparison.warmups,
        drift=comparison.drift,
        warmup_calls=comparison.warmup_calls,
        in_runtime_ms={
            name: 1e3 * statistics.median(run.seconds[-comparison.latencies[name].calls :])
            for name, run in runs.items()
            if isinstance(run, Timed)
        },
        images=images,
        watch=watch.summary(),
        energy=energy,
        notes=(
            *(_unstable(name) for name, warm in comparison.warmups.items() if not warm.stable),
            *watch.notes(latency_drift=comparison.drift),
        ),
    )


@dataclass(frozen=True)
class Load:
    """A model, and how the throughput scenario loads it."""

    run: Run
    images: int
    """Images in one call."""
    parallel: int
    """Calls that the runtime runs in parallel."""


def throughput(
    candidate: str, loads: Mapping[str, Load], *, seconds: float, rails: Sequence[str] = ()
) -> ThroughputResult:
    """As many parallel inferences as the runtime has streams, in windows of about a second."""
    watch = Watch(rails=rails)
    rates: dict[str, list[float]] = {name: [] for name in loads}
    for load in loads.values():
        _window(load)  # warms all streams up
    start = time.monotonic()
    done = 0
    while time.monotonic() - start < seconds or len(rates[candidate]) < 3:
        for name, load in loads.items():
            rate, calls = _window(load)
            rates[name].append(rate)
            done += calls
            watch.look()
    watch.finish()
    own = rates[candidate]
    drift = interleaved.drift([1 / rate for rate in own])
    images = loads[candidate].images
    energy = watch.energy(done, done * images)
    if len(loads) > 1 and energy.available:
        energy = Energy(available=False, why="several models took turns")
    return ThroughputResult(
        candidate=candidate,
        models={
            name: Rate(
                images_per_second=statistics.median(measured),
                least=min(measured),
                most=max(measured),
                windows=len(measured),
                streams=loads[name].parallel,
                images=loads[name].images,
            )
            for name, measured in rates.items()
        },
        ratios={
            name: interleaved.ratio([1 / rate for rate in measured], [1 / rate for rate in own])
            for name, measured in rates.items()
            if name != candidate
        },
        drift=drift,
        watch=watch.summary(),
        energy=energy,
        notes=tuple(watch.notes(latency_drift=drift, what="the time per image")),
    )


def sustained(
    run: Run,
    *,
    images: int,
    minutes: float,
    on_point: Callable[[Point], None],
    rails: Sequence[str] = (),
) -> SustainedResult:
    """Back-to-back inferences for ``minutes``, as a time series of latency and conditions."""
    watch = Watch(rails=rails)
    warm = interleaved.warm_up(run, most_seconds=10.0)
    total = 60 * minutes
    interval = max(min(1.0, total / 10), total / _POINTS)
    points: list[Point] = []
    start = time.monotonic()
    while (begin := time.monotonic()) - start < total:
        latency = interleaved.summarize(interleaved.window(run, seconds=interval, calls=3))
        watch.look()
        sample = watch.samples[-1]
        before = watch.samples[-2] if len(watch.samples) > 1 else sample
        watts = None
        if sample.joules is not None and before.joules is not None and sample is not before:
            watts = (sample.joules - before.joules) / (sample.seconds - before.seconds)
        point = Point(
            seconds=begin - start,
            calls=latency.calls,
            median_ms=latency.median_ms,
            p95_ms=latency.p95_ms,
            mhz=sample.mhz,
            celsius=sample.celsius,
            watts=watts,
        )
        points.append(point)
        on_point(point)
    watch.finish()
    drift = interleaved.drift([point.median_ms for point in points])
    calls = sum(point.calls for point in points)
    return SustainedResult(
        minutes=minutes,
        images=images,
        calls=calls,
        warmup=warm,
        points=tuple(points),
        drift=drift,
        fastest_ms=min(point.median_ms for point in points),
        slowest_ms=max(point.median_ms for point in points),
        watch=watch.summary(),
        energy=watch.energy(calls + warm.calls, (calls + warm.calls) * images),
        notes=tuple(watch.notes(latency_drift=drift)),
    )


def _unstable(name: str) -> str:
    return f"the latency of '{name}' was not stable when the warm-up ran out of time"


def _window(load: Load) -> tuple[float, int]:
    """Images per second over about a second of full load, and the number of calls.

    The first and last calls of a window run beside idle streams, so the rate is taken between the
    moment each stream has finished its first call and the last call that began in time.
    """
    ends: list[float] = []
    deadline = time.monotonic() + _WINDOW_SECONDS
    least = 4 * load.parallel

    def work() -> None:
        while time.monotonic() < deadline or len(ends) < least:
            load.run()
            ends.append(time.monotonic())  # atomic

    for worker in [submit(work) for _ in range(load.parallel)]:
        result_of(worker, "the throughput of the next second")
    ends.sort()
    first, last = ends[load.parallel - 1], ends[-load.parallel]
    between = len(ends) - 2 * load.parallel + 1
    return load.images * between / (last - first), len(ends)
