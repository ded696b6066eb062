"""``edgekit bench``: how fast a bundle is where it runs, and the conditions of the test."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.bench.options import SCENARIOS, USUAL, BenchOptions, Scenario
from edgekit.cli.common import Command, OutputFile, common, raise_failures
from edgekit.cli.gate import OF_PARITY, fail_unless_held, gate_options, take_gate
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.bench.document import BenchReport
    from edgekit.devices.registry import Device
    from edgekit.metrics.budgets import Budgets, LeftOut
    from edgekit.report.gate import GateReport

_JUDGED = (
    *("max_latency_ratio", "max_ms", "max_mb", "max_memory_mb", "max_cold_start_ms"),
    "max_slowdown",
)


@click.command(
    cls=Command,
    prints=("bench",),
    short_help="Measure latency, throughput, cold start, memory, energy.",
    examples="""
    edgekit bench build/cpu
    edgekit bench build/cpu --scenario latency --seconds 30 --layers
    edgekit bench build/cpu --minutes 10 -o sustained.json
    edgekit bench build/new build/old --compare
    edgekit bench build/jetson-orin-nano --device nano
    edgekit bench build/openvino-arm --devices all
    edgekit bench build/cpu --max-latency-ratio 0.6 --max-memory-mb 300
    edgekit bench build/cpu --baseline previous/cpu --budgets budgets.toml \\
      --summary summary.md --junit bench.xml
    edgekit bench build/cpu --json | jq '.bundles[0].scenarios.latency.latencies'
    """,
)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(SCENARIOS),
    help=f"Repeatable; default: {', '.join(USUAL)}.",
)
@click.option(
    "--seconds", type=float, default=10.0, show_default=True, help="For latency and for throughput."
)
@click.option("--minutes", type=float, help="Add a sustained load of this length.  [5]")
@click.option("--batch", type=int, help="Images per inference (default: the target's).")
@click.option("--threads", type=int, help="CPU threads (0: the runtime's choice).")
@click.option(
    "--compare", is_flag=True, help="Let the bundles take turns; print ratios to the first."
)
@click.option(
    "--baseline",
    default="auto",
    show_default=True,
    help="Float .onnx, none, auto (the bundle's original in the cache), or an earlier bundle.",
)
@click.option("--layers", is_flag=True, help="Time every layer, too.")
@click.option("--replace", is_flag=True, help="Replace bench.json, even by a weaker run.")
@click.option(
    "--device",
    "--devices",
    "names",
    multiple=True,
    help="Measure on a registered device, or user@host; repeatable; all: on all of them.",
)
@click.option("-o", "--output", type=OutputFile(), help="Also write the JSON document here.")
@gate_options(*_JUDGED)
@common
def bench(
    console: Console,
    bundles: tuple[Path, ...],
    scenarios: tuple[Scenario, ...],
    seconds: float,
    minutes: float | None,
    batch: int | None,
    threads: int | None,
    compare: bool,
    baseline: str,
    layers: bool,
    replace: bool,
    names: tuple[str, ...],
    output: Path | None,
    **gating: Any,
) -> None:
    """Measure BUNDLES: latency, throughput, cold start, memory, sustained load, energy.

    Runs here or on devices, after a self-test. The result is stored in each bundle as
    bench.json, or beside an existing one that is stronger. Several devices measure at the
    same time, each one thing at a time; a failure does not affect the others.

    Exits with 3 if a budget is broken or undecided.
    """
    from edgekit.bench.evidence import save
    from edgekit.bench.run import bench_bundles, earlier_bundle
    from edgekit.core.files import write_text
    from edgekit.core.step_cache import cache_root
    from edgekit.report.bench_table import show
    from edgekit.report.gate import GatedBench
    from edgekit.report.page import refresh_report

    chosen = scenarios or USUAL
    if minutes is not None and "sustained" not in chosen:
        chosen = (*chosen, "sustained")
    options = BenchOptions(
        scenarios=chosen,
        seconds=seconds,
        minutes=5.0 if minutes is None else minutes,
        batch=batch,
        threads=threads,
        compare=compare,
        baseline=baseline,
        layers=layers,
    )
    gate = take_gate(gating)
    earlier = earlier_bundle(options, bundles)
    devices = _devices(names, bundles, console)
    budgets, left_out = gate.judged(_unable(earlier, on_device=bool(devices)))
    gate.check(bundles, output=output)
    failures: list[tuple[str, EdgekitError]] = []
    if not devices:
        reports = [bench_bundles(bundles, options, console, cache_root())]
    else:
        from edgekit.devices.remote_bench import bench_on_devices

        results = bench_on_devices(bundles, options, devices, console)
        reports = [result for result in results if not isinstance(result, EdgekitError)]
        pairs = zip(devices, results, strict=True)
        failures = [(one.name, found) for one, found in pairs if isinstance(found, EdgekitError)]
        if not reports:
            raise_failures(failures)
    paths = [path for _ in reports for path in bundles]
    measured = [document for report in reports for document in report.bundles]
    saved = []
    for path, one in zip(paths, measured, strict=True):
        saved.append(save(path, one, console, replace=replace))
        refresh_report(path)
    report = dataclasses.replace(reports[0], bundles=tuple(saved))
    outcome = _judged(report, paths, budgets, left_out, earlier)
    document = GatedBench(report, outcome.section())
    if output is not None:
        write_text(output, json.dumps(document.to_dict(), indent=1, sort_keys=True) + "\n")
    console.document(document)
    show(report, console)
    outcome.show(console)
    gate.write(outcome, console)
    raise_failures(failures)
    fail_unless_held(outcome)


def _devices(names: Sequence[str], bundles: Sequence[Path], console: Console) -> list[Device]:
    """The devices that are named, each once; none means this machine."""
    if not names:
        return []
    from edgekit.bundle.store import open_bundle
    from edgekit.devices.remote_bench import devices_of

    targets = {open_bundle(path, any_arch=True).manifest.target.name for path in bundles}
    found = [device for name in names for device in devices_of(name, targets, console)]
    return list({device.name: device for device in found}.values())


def _unable(earlier: Path | None, *, on_device: bool) -> dict[str, str]:
    """The budgets that this run cannot judge, and why."""
    unable = dict(OF_PARITY)
    if not on_device:
        unable["max_ms"] = "it is for a certain machine: name that with --device"
    else:
        unable["max_latency_ratio"] = "the float model is not on the device"
    if earlier is None:
        unable["max_slowdown"] = "--baseline names no earlier bundle"
    return unable


def _judged(
    report: BenchReport,
    bundles: Sequence[Path],
    budgets: Budgets,
    left_out: tuple[LeftOut, ...],
    earlier: Path | None,
) -> GateReport:
    from edgekit.bench.budgets import SLOWDOWN, judge_bench
    from edgekit.report.gate import GatedBundle, GateReport, report_of

    if earlier is not None and budgets.max_slowdown is None:
        budgets = dataclasses.replace(budgets, max_slowdown=SLOWDOWN)
    gated = tuple(
        GatedBundle(
            str(path) if measured.device is None else f"{path} on {measured.device.name}",
            judge_bench(budgets, measured, report.comparison if earlier else None),
            report=report_of(path),
        )
        for path, measured in zip(bundles, report.bundles, strict=True)
    )
    return GateReport("bench", gated, left_out)
