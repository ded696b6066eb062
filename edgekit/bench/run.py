"""``edgekit bench``: what is measured for every bundle, and in which order."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit import __version__
from edgekit.bench import scenarios
from edgekit.bench.baseline import Baselines, baselines
from edgekit.bench.cold_start import ProcessSettings, cold_start, memory, run_process
from edgekit.bench.conditions import conditions
from edgekit.bench.document import (
    OWN,
    BenchDocument,
    BenchReport,
    BundleComparison,
    Gap,
    bundle_facts,
)
from edgekit.bench.interleaved import Run
from edgekit.bench.options import BenchOptions
from edgekit.bench.results import (
    ColdStart,
    Memory,
    Point,
    Scenarios,
    Start,
)
from edgekit.bench.scenarios import Load, Timed
from edgekit.bundle.engine import check_engine_built
from edgekit.bundle.manifest import creation_time
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.data.synthetic import pictures
from edgekit.runtime.model import Model, load
from edgekit.runtime.selftest import prove
from edgekit.targets.descriptor import Hint

_COLD_STARTS: Final = 5  # processes each way
_REPORT_EVERY: Final = 10.0  # seconds


def bench_bundles(
    paths: Sequence[Path], options: BenchOptions, console: Console, cache: Path
) -> BenchReport:
    """Measure the bundles; nothing is stored."""
    if options.compare and len(paths) < 2:
        raise UsageError("--compare takes two bundles or more")
    if options.compare and len(set(paths)) < len(paths):
        raise UsageError("--compare: the same bundle is named twice")
    earlier = earlier_bundle(options, paths)
    bundles = [_open(path) for path in paths]
    comparison = None
    if earlier is not None:
        options = dataclasses.replace(options, baseline="auto")
        comparison = _compare_with_earlier(bundles[0], _open(earlier), options, console)
    elif options.compare:
        comparison = _compare_bundles(bundles, options, console)
    alone = tuple(
        name
        for name in options.scenarios
        if not options.compare or name not in ("latency", "throughput")
    )
    options = dataclasses.replace(options, scenarios=alone)
    documents = tuple(_bench(bundle, options, console, cache) for bundle in bundles)
    return BenchReport(documents, comparison)


def earlier_bundle(options: BenchOptions, paths: Sequence[Path]) -> Path | None:
    """The earlier bundle that --baseline names; None if it names a float model or nothing."""
    earlier = Path(options.baseline)
    if not (earlier.is_dir() or earlier.suffix == ".zip"):
        return None
    if options.compare or len(paths) > 1:
        raise UsageError("--baseline with an earlier bundle is for one bundle, without --compare")
    if "latency" not in options.scenarios:
        raise UsageError(
            "--baseline with an earlier bundle compares latency: add --scenario latency"
        )
    if earlier.resolve() == paths[0].resolve():
        raise UsageError(f"--baseline: {earlier} is the bundle itself: name an earlier one")
    return earlier


def _compare_with_earlier(
    bundle: Bundle, earlier: Bundle, options: BenchOptions, console: Console
) -> BundleComparison:
    """The latency of both, taking turns; the float models take theirs with the bundle alone."""
    only = dataclasses.replace(options, scenarios=("latency",))
    comparison = _compare_bundles([bundle, earlier], only, console)
    batches = [runtime["batch"] for runtime in comparison.runtimes.values()]
    if batches[0] != batches[1]:
        raise UsageError(
            f"{bundle.path} takes {batches[0] or 'any number of'} images at a time and "
            f"{earlier.path} {batches[1] or 'any number'}: name --batch"
        )
    return comparison


def _bench(bundle: Bundle, options: BenchOptions, console: Console, cache: Path) -> BenchDocument:
    """One bundle's measurement, beside its float original."""
    at = conditions()
    model = _load(bundle, options, "latency")
    runtime = model.describe()
    tested = prove(model, bundle)
    images = _images(model)
    rails = bundle.manifest.target.power_rails
    results: dict[str, Any] = {}
    gaps: tuple[Gap, ...] = ()
    for scenario in options.scenarios:
        _announce(console, bundle, scenario, options)
        if scenario == "latency":
            others = _baselines(options, bundle, cache, images, console)
            runs: dict[str, Run] = {OWN: Timed(model, images), **others.runs}
            results["latency"] = scenarios.latency(
                OWN, runs, images=len(images), seconds=options.seconds, rails=rails
            )
            gaps = tuple(Gap(name, why) for name, why in others.missing.items())
        elif scenario == "throughput":
            loads = {OWN: _load_streams(bundle, options)}
            results["throughput"] = scenarios.throughput(
                OWN, loads, seconds=options.seconds, rails=rails
            )
        elif scenario == "sustained":
            results["sustained"] = scenarios.sustained(
                lambda: model.run(images),
                images=len(images),
                minutes=options.minutes,
                on_point=_Progress(console, options.minutes),
                rails=rails,
            )
    process_scenarios = [name for name in options.scenarios if name in ("cold-start", "memory")]
    if process_scenarios:
        results |= _in_new_processes(bundle, options, process_scenarios, cache)
    layers = None
    if options.layers:
        from edgekit.bench.layers.profile import layer_times

        layers = layer_times(bundle, options, images)
    measured = Scenarios(**results)
    return BenchDocument(
        edgekit=__version__,
        measured=creation_time(),
        bundle=bundle_facts(bundle),
        settings=options,
        conditions=at,
        runtime=runtime,
        self_test=tested,
        scenarios=measured,
        layers=layers,
        not_measured=gaps,
        notes=measured.notes(),
    )


def _compare_bundles(
    bundles: list[Bundle], options: BenchOptions, console: Console
) -> BundleComparison:
    """Latency and throughput of several bundles that take turns."""
    models = {str(bundle.path): _load(bundle, options, "latency") for bundle in bundles}
    for bundle in bundles:
        prove(models[str(bundle.path)], bundle)
    candidate = str(bundles[0].path)
    images = {name: _images(model) for name, model in models.items()}
    at = conditions()
    latency = throughput = None
    if "latency" in options.scenarios:
        console.info(f"latency: {len(bundles)} bundles taking turns, about {options.seconds:.0f} s")
        latency = scenarios.latency(
            candidate,
            {name: Timed(model, images[name]) for name, model in models.items()},
            images=len(images[candidate]),
            seconds=options.seconds,
        )
    if "throughput" in options.scenarios:
        console.info(
            f"throughput: {len(bundles)} bundles taking turns, about {options.seconds:.0f} s"
        )
        throughput = scenarios.throughput(
            candidate,
            {str(bundle.path): _load_streams(bundle, options) for bundle in bundles},
            seconds=options.seconds,
        )
    runtimes = {name: model.describe() for name, model in models.items()}
    return BundleComparison(candidate, at, runtimes, latency, throughput)


def _in_new_processes(
    bundle: Bundle, options: BenchOptions, names: Sequence[str], cache: Path
) -> dict[str, Any]:
    """Cold start and memory, with the model compiled now and with the result of an earlier start.

    Only OpenVINO compiles while loading and caches the result.
    """
    count = _COLD_STARTS if "cold-start" in names else 1
    caches: dict[Start, str | None] = {"first": None, "later": str(cache / "compiled")}
    if bundle.manifest.target.backend != "openvino":
        caches = {"later": None}
    starts: dict[Start, ColdStart] = {}
    used: dict[Start, Memory] = {}
    for start, folder in caches.items():
        settings = ProcessSettings(str(bundle.path), options.batch, options.threads, folder)
        run_process(settings)  # warms the file cache and the cache of compiled models
        runs = [run_process(settings) for _ in range(count)]
        starts[start] = cold_start(runs)
        used[start] = memory(runs)
    results = {"cold_start": starts, "memory": used}
    return {name: results[name] for name in (name.replace("-", "_") for name in names)}


def _open(path: Path) -> Bundle:
    bundle = open_bundle(path)
    check_engine_built(bundle)
    return bundle


def _load(bundle: Bundle, options: BenchOptions, hint: Hint) -> Model:
    """The loaded bundle; one that rejects the requested batch is the user's mistake."""
    try:
        model = load(bundle.path, threads=options.threads, hint=hint, batch=options.batch)
        model.run(_images(model))
    except EdgekitError as error:
        if options.batch is None or isinstance(error, (UsageError, ToolchainMissing)):
            raise
        raise UsageError(
            f"{bundle.path} does not run with --batch {options.batch}: {error}"
        ) from error
    return model


def _load_streams(bundle: Bundle, options: BenchOptions) -> Load:
    model = _load(bundle, options, "throughput")
    images = _images(model)
    return Load(_call(model, images), len(images), model.parallel)


def _call(model: Model, images: NDArray[np.uint8]) -> Any:
    return lambda: model.run(images)


def _images(model: Model) -> NDArray[np.uint8]:
    """Synthetic pictures for one inference."""
    return pictures(int(model.describe()["batch"]) or 1, model.size)


def _baselines(
    options: BenchOptions,
    bundle: Bundle,
    cache: Path,
    images: NDArray[np.uint8],
    console: Console,
) -> Baselines:
    return baselines(options.baseline, bundle, cache, images, options.threads or 0, console)


def _announce(console: Console, bundle: Bundle, scenario: str, options: BenchOptions) -> None:
    times = {
        "latency": f"about {options.seconds:.0f} s",
        "throughput": f"about {options.seconds:.0f} s",
        "cold-start": f"{_COLD_STARTS} processes each way",
        "memory": "in a separate process",
        "sustained": f"{options.minutes:g} min",
    }
    console.info(f"{scenario} ({bundle.path}): {times[scenario]}")


class _Progress:
    """Reports the progress of a sustained run now and then."""

    def __init__(self, console: Console, minutes: float) -> None:
        self._console = console
        self._minutes = minutes
        self._reported = time.monotonic()

    def __call__(self, point: Point) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY:
            return
        self._reported = now
        heat = "" if point.celsius is None else f", {point.celsius:.0f} °C"
        self._console.info(
            f"sustained: {point.seconds / 60:.1f} of {self._minutes:g} min, "
            f"{point.median_ms:.2f} ms{heat}"
        )
