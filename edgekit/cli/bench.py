"""``edgekit bench``: how fast a bundle is where it runs, and the conditions of the test."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from edgekit.bench.options import SCENARIOS, USUAL, BenchOptions, Scenario
from edgekit.cli.common import Command, common
from edgekit.core.console import Console


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
    help="Float .onnx to compare with, none, or auto: the bundle's original in the cache.",
)
@click.option("--layers", is_flag=True, help="Time every layer, too.")
@click.option("--replace", is_flag=True, help="Replace bench.json, even by a weaker run.")
@click.option("--device", help="Measure on a registered device, or user@host.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Also write the JSON document here."
)
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
    device: str | None,
    output: Path | None,
) -> None:
    """Measure BUNDLES: latency, throughput, cold start, memory, sustained load, energy.

    Runs here or on a device, after a self-test. The result is stored in each bundle as
    bench.json, or beside an existing one that is stronger.
    """
    from edgekit.bench.evidence import save
    from edgekit.bench.run import bench_bundles
    from edgekit.core.files import write_text
    from edgekit.core.step_cache import cache_root
    from edgekit.report.bench_table import show
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
    if device is None:
        report = bench_bundles(bundles, options, console, cache_root())
    else:
        from edgekit.devices.registry import find_device
        from edgekit.devices.remote_bench import bench_on_device

        report = bench_on_device(bundles, options, find_device(device), console)
    saved = []
    for path, measured in zip(bundles, report.bundles, strict=True):
        saved.append(save(path, measured, console, replace=replace))
        refresh_report(path)
    report = dataclasses.replace(report, bundles=tuple(saved))
    if output is not None:
        write_text(output, json.dumps(report.to_dict(), indent=1, sort_keys=True) + "\n")
    console.document(report)
    show(report, console)
