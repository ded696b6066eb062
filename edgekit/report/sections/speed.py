"""How fast: latency beside float, cold start, memory, throughput, and under what conditions."""

from __future__ import annotations

import dataclasses
from typing import Final

from edgekit.bench.conditions import Conditions
from edgekit.bench.document import BenchDocument, BenchSummary
from edgekit.bench.results import Scenarios
from edgekit.report import bench_table
from edgekit.report.figures.cold_start import STARTS, cold_start
from edgekit.report.figures.latency import latency
from edgekit.report.figures.layers import layers
from edgekit.report.figures.memory import memory
from edgekit.report.figures.time_series import time_series
from edgekit.report.markup import beside, facts, folded, paragraph, section, table
from edgekit.report.unusual import unusual

_LATENCY: Final = (
    *("ms", "p50", "p90", "p95", "p99", "max", "mean", "jitter", "calls"),
    "times the bundle's",
)
_BESIDE: Final = ("measured", "where", "p50", "throughput", "why it is not the one above")


def speed(bench: BenchDocument) -> str:
    """The section of a bench.json."""
    scenarios = bench.scenarios
    parts = []
    if (timed := scenarios.latency) is not None:
        parts += [
            latency(timed.latencies, timed.histograms, timed.candidate),
            table(_LATENCY, bench_table.latency_rows(timed)),
        ]
    # Starts and memory have figures and tables of their own.
    others = dataclasses.replace(scenarios, cold_start=None, memory=None)
    parts += [paragraph(line) for line in bench_table.lines(others)]
    parts.append(beside(_starts(scenarios), _memory(scenarios)))
    if scenarios.sustained is not None:
        parts.append(time_series(scenarios.sustained.points))
    if bench.layers is not None:
        shares = bench.layers.parts.items()
        rows = [[name, f"{part.ms:.2f}", f"{part.share:.1%}"] for name, part in shares]
        parts += [
            "<h3>Where the time goes</h3>",
            table(("part", "ms", "share"), rows),
            layers(bench.layers) if bench.layers.layers else "",
        ]
    parts += _conditions(bench)
    if bench.beside:
        parts += [
            "<h3>Weaker or other measurements</h3>",
            table(_BESIDE, bench_table.beside_rows(bench)),
        ]
    return section("Speed", *parts)


def quick_speed(quick: BenchSummary | None) -> str:
    """The build's own comparison."""
    if quick is None or not quick.latencies:
        return ""
    rows = []
    for name, one in quick.latencies.items():
        ratio = (quick.ratios or {}).get(name)
        times = "" if ratio is None else bench_table.interval(ratio)
        rows.append([name, *(f"{ms:.2f}" for ms in (one.median_ms, one.p90_ms, one.p99_ms)), times])
    return section(
        "Speed",
        paragraph("The build's own short comparison; 'edgekit bench' measures more."),
        latency(quick.latencies, {}, quick.candidate or ""),
        table(("ms", "p50", "p90", "p99", "times the bundle's"), rows),
    )


def _starts(scenarios: Scenarios) -> str:
    """Cold starts, as a figure and in numbers."""
    if not scenarios.cold_start:
        return ""
    columns = ("ms", "median", "least", "most", "later calls")
    rows = [
        [
            STARTS[name],
            *(f"{ms:.0f}" for ms in (one.median_ms, one.min_ms, one.max_ms)),
            f"{one.after_ms:.2f}",
        ]
        for name, one in scenarios.cold_start.items()
    ]
    return f"<div>{cold_start(scenarios.cold_start)}{table(columns, rows)}</div>"


def _memory(scenarios: Scenarios) -> str:
    """Memory, as a figure and in numbers."""
    if not scenarios.memory:
        return ""
    columns = ("MiB", "runtime", "loaded", "in use", "peak", "GPU")
    rows = [
        [
            STARTS[name],
            *(
                "-" if mib is None else f"{mib:.0f}"
                for mib in (
                    one.runtime_mib,
                    one.loaded_mib,
                    one.used_mib,
                    one.peak_mib,
                    one.gpu_mib,
                )
            ),
        ]
        for name, one in scenarios.memory.items()
    ]
    return f"<div>{memory(scenarios.memory)}{table(columns, rows)}</div>"


def _conditions(bench: BenchDocument) -> list[str]:
    at = "" if bench.device is None else f"on {bench.device.name}, "
    where = at + bench_table.conditions_line(bench.conditions)
    odd = unusual(bench)
    return [
        "<h3>Conditions</h3>",
        paragraph(f"Measured {bench.measured} {where}; {bench.runtime.get('runtime', '')}."),
        paragraph(bench_table.self_test_line(bench.self_test)),
        *(paragraph(one, "note") for one in odd),
        *([] if odd else [paragraph("Nothing in the conditions was unusual.")]),
        folded("All conditions", facts(_all_conditions(bench.conditions, bench))),
    ]


def _all_conditions(at: Conditions, bench: BenchDocument) -> list[tuple[str, str]]:
    """What the machine reported; empty where it reports nothing."""

    def known(value: object, unit: str = "") -> str:
        return "" if value is None else f"{value}{unit}"

    clock = "" if at.before.mhz is None else f"{at.before.mhz:.0f} MHz"
    span = "" if at.mhz_range is None else " to ".join(f"{mhz:.0f}" for mhz in at.mhz_range)
    heat = ", ".join(f"{name} {celsius:.0f} °C" for name, celsius in at.before.celsius.items())
    watched = bench.scenarios.latency
    others = None if watched is None else watched.watch.other_programs_cores
    return [
        ("machine", at.machine),
        ("processor", known(at.cpu)),
        ("architecture", at.arch),
        ("cores", f"{known(at.cores.usable) or '?'} of {known(at.cores.machine) or '?'}"),
        ("limit of the container", known(at.cores.limit)),
        ("memory", known(at.memory_mib, " MiB")),
        ("system", f"{known(at.system)}, Linux {at.kernel}".removeprefix(", ")),
        ("clock before", clock),
        ("clock's range", span and f"{span} MHz"),
        ("boost", {None: "", True: "on", False: "off"}[at.boost]),
        ("governor", " ".join(filter(None, (at.governor, at.driver)))),
        ("power mode", known(at.power_mode)),
        ("temperatures before", heat),
        ("load before", known(at.before.load)),
        ("other programs", "" if others is None else f"{others:.2f} cores during latency"),
        ("GPU driver", known(at.gpu_driver)),
        ("Jetson Linux", known(at.l4t)),
        ("settings", ", ".join(f"{name} {value}" for name, value in bench.runtime.items())),
        ("versions", ", ".join(f"{name} {text}" for name, text in at.versions.items())),
    ]
