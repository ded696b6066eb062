"""The results of ``edgekit bench`` on a terminal: a table, a histogram, a line per figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgekit.bench.cold_start import PHASES
from edgekit.bench.conditions import Conditions
from edgekit.bench.document import BenchDocument, BenchReport, BundleComparison
from edgekit.bench.interleaved import Histogram, Ratio
from edgekit.bench.results import LatencyResult, Layers, Scenarios, Start
from edgekit.core.console import Console
from edgekit.core.tables import Column, Table
from edgekit.runtime.selftest import Proof

_SHOWN: Final = 10

LATENCY: Final = Table.of(
    "latency, ms",
    Column("p50", "figure"),
    Column("p90", "figure", drop=6),
    Column("p95", "figure", drop=3),
    Column("p99", "figure"),
    Column("max", "figure", drop=4),
    Column("mean", "figure", drop=2),
    Column("jitter", "figure", drop=5),
    Column("calls", "figure", drop=1),
    Column("relative time", "figure"),
)
_ROWS: Final = 12  # of a histogram
_WIDTH: Final = 40


def show(report: BenchReport, console: Console) -> None:
    """Print the command's document."""
    if report.comparison is not None:
        _show_comparison(report.comparison, console)
    for document in report.bundles:
        _show_bundle(document, console)


def layer_lines(layers: Layers) -> list[str]:
    """The parts and the slowest layers, a line each."""
    shares = (f"{name} {part.ms:.2f} ms ({part.share:.1%})" for name, part in layers.parts.items())
    text = [f"layers, profiled: {', '.join(shares)}; {layers.parts_from}"]
    for layer in layers.layers[:_SHOWN]:
        text.append(
            f"  {layer.milliseconds:8.3f} ms {layer.share:6.1%}  {layer.kind}  "
            f"{layer.name}  ({layer.part})"
        )
    return text


def _show_bundle(document: BenchDocument, console: Console) -> None:
    console.text(title(document))
    console.text(conditions_line(document.conditions))
    console.text(self_test_line(document.self_test))
    if latency := document.scenarios.latency:
        console.table(LATENCY, latency_rows(latency))
        for line in histogram_lines(latency.histograms[latency.candidate]):
            console.text(line)
    for line in lines(document.scenarios):
        console.text(line)
    if document.layers is not None:
        for line in layer_lines(document.layers):
            console.text(line)
    for gap in document.not_measured:
        console.text(f"not measured: {gap.what}: {gap.why}")
    for note in document.notes:
        console.warn(note)


def _show_comparison(comparison: BundleComparison, console: Console) -> None:
    console.text(f"compared with {comparison.candidate}, taking turns")
    console.text(conditions_line(comparison.conditions))
    latency, throughput = comparison.latency, comparison.throughput
    if latency is not None:
        console.table(LATENCY, latency_rows(latency))
    if throughput is not None:
        for name, model in throughput.models.items():
            text = f"throughput: {name}: {model.images_per_second:.1f} images/s"
            if ratio := throughput.ratios.get(name):
                text += f", an image takes {interval(ratio)} times as long as with the first"
            console.text(text)
    for name, result in (("latency", latency), ("throughput", throughput)):
        for note in () if result is None else result.notes:
            console.warn(f"{name}: {note}")


def title(document: BenchDocument) -> str:
    """The bundle and its runtime."""
    bundle, runtime = document.bundle, document.runtime
    return (
        f"{bundle.path}: {bundle.precision} for {bundle.target}, "
        f"{bundle.size_bytes / 1e6:.1f} MB, {runtime.get('runtime', bundle.backend)}, "
        f"{runtime.get('threads', '?')} thread(s), batch {runtime.get('batch') or 'any'}"
    )


def conditions_line(conditions: Conditions) -> str:
    """The main conditions in one line; bench.json has all of them."""
    cores, before = conditions.cores, conditions.before
    limit = "" if cores.limit is None else f", limited to {cores.limit:g}"
    parts = [conditions.machine, f"{cores.usable} of {cores.machine} cores{limit}"]
    if conditions.governor:
        parts.append(f"governor {conditions.governor}")
    if before.mhz:
        parts.append(f"{before.mhz:.0f} MHz")
    if conditions.power_mode:
        parts.append(f"power mode {conditions.power_mode}")
    if before.celsius:
        parts.append(f"{max(before.celsius.values()):.0f} °C")
    if before.load is not None:
        parts.append(f"load {before.load:.1f}")
    return "on " + ", ".join(parts)


def self_test_line(test: Proof | None) -> str:
    """The self-test's result."""
    if test is None:
        return "self-test: not run"
    text = f"self-test: {test.images} images, finite and repeatable"
    if stored := test.stored:
        text += (
            f"; against {stored.against}: logits within {stored.logits_error:.2%}, top-1 "
            f"{stored.top1_equal}/{stored.images}"
        )
        if stored.codes:
            text += f", codes {stored.codes_equal}/{stored.codes}"
    return text


def latency_rows(result: LatencyResult) -> list[list[str]]:
    """A row per model, the candidate first."""
    rows = []
    for name, latency in result.latencies.items():
        ratio = result.ratios.get(name)
        figures = (
            *(latency.median_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms),
            *(latency.max_ms, latency.mean_ms, latency.jitter_ms),
        )
        times = "" if ratio is None else interval(ratio)
        rows.append([name, *(f"{value:.2f}" for value in figures), str(latency.calls), times])
    return rows


def histogram_lines(calls: Histogram) -> list[str]:
    """A few bars of calls by latency."""
    counts, edges = calls.counts, calls.edges_ms
    step = -(-len(counts) // _ROWS)
    merged = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    top = max(merged)
    width = len(f"{edges[-1]:.2f}")
    lines = []
    for index, count in enumerate(merged):
        bar = "█" * round(_WIDTH * count / top) or ("▏" if count else "")
        lines.append(f"  {edges[index * step]:{width}.2f} ms  {bar} {count}".rstrip())
    if calls.above:
        lines.append(f"  {edges[-1]:{width}.2f} and slower: {calls.above}")
    return lines


def lines(scenarios: Scenarios) -> list[str]:
    """A line per figure, for everything outside the latency table."""
    text = []
    if latency := scenarios.latency:
        inside = latency.in_runtime_ms[latency.candidate]
        text.append(f"of which in the runtime: median {inside:.2f} ms")
    if throughput := scenarios.throughput:
        own = throughput.own
        text.append(
            f"throughput: {own.images_per_second:.1f} images/s, {own.streams} stream(s), "
            f"batch {own.images}"
        )
    for name, start in (scenarios.cold_start or {}).items():
        # Not in the mapping's order: JSON sorts the keys of what a device measured.
        spans = ((phase, start.phases_ms.get(phase)) for phase in PHASES)
        phases = ", ".join(f"{phase} {ms:.0f}" for phase, ms in spans if ms is not None)
        text.append(
            f"cold start, {_START[name]}: {start.median_ms:.0f} ms "
            f"[{start.min_ms:.0f}, {start.max_ms:.0f}] ({phases})"
        )
    for name, used in (scenarios.memory or {}).items():
        gpu = "" if used.gpu_mib is None else f", GPU {used.gpu_mib:.0f} MiB"
        text.append(
            f"memory, {_START[name]}: peak {_mib(used.peak_mib)}, in use "
            f"{_mib(used.used_mib)}, of which Python and runtime "
            f"{_mib(used.runtime_mib)}{gpu}"
        )
    if sustained := scenarios.sustained:
        text.append(
            f"sustained: {sustained.minutes:g} min, {sustained.calls} calls, median of an interval "
            f"{sustained.fastest_ms:.2f} to {sustained.slowest_ms:.2f} ms, last third "
            f"{sustained.drift:.2f} times the first"
        )
    return [*text, *_energy_lines(scenarios)]


_START: Final[Mapping[Start, str]] = {"first": "compiling", "later": "every later start"}


def beside_rows(document: BenchDocument) -> list[list[str]]:
    """A row for each measurement that is not the bundle's evidence."""
    rows = []
    for run in sorted(document.beside, key=lambda run: run.measured, reverse=True):
        latency, through = run.summary.own, run.summary.throughput
        rows.append(
            [
                run.measured,
                run.where,
                "-" if latency is None else f"{latency.median_ms:.2f} ms",
                "-" if through is None else f"{through.images_per_second:.1f} images/s",
                run.why,
            ]
        )
    return rows


def _energy_lines(scenarios: Scenarios) -> list[str]:
    """The energy of every scenario, or why it is unknown; equal reasons are given once."""
    text = {}
    for name, energy in scenarios.energies().items():
        if energy.available and energy.watts is not None:
            image = energy.millijoules_per_image
            each = "" if image is None else f", {image:.1f} mJ per image"
            text[name] = f"energy ({name}): {energy.watts:.1f} W{each} ({energy.source})"
        else:
            text[energy.why or ""] = f"energy: not available: {energy.why}"
    return list(text.values())


def _mib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} MiB"


def interval(ratio: Ratio) -> str:
    """A ratio with its 95% interval."""
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
