"""The figures of ``edgekit bench`` for people: a table, a histogram, and a line for each answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgekit.core.console import Console

_SHOWN: Final = 10

_COLUMNS: Final = (
    *("latency, ms", "p50", "p90", "p95", "p99", "max", "mean", "jitter", "calls"),
    "times the first's",
)
_RIGHT: Final = ",".join(_COLUMNS[1:])
_ROWS: Final = 12  # of a histogram
_WIDTH: Final = 40


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print the command's document."""
    if document["comparison"] is not None:
        _show_comparison(document["comparison"], console)
    for entry in document["bundles"]:
        _show_bundle(entry, console)


def layer_lines(found: Mapping[str, Any]) -> list[str]:
    """The parts and the slowest layers, for people."""
    shares = (
        f"{name} {part['ms']:.2f} ms ({part['share']:.1%})" for name, part in found["parts"].items()
    )
    text = [f"layers, profiled: {', '.join(shares)}; {found['parts_from']}"]
    for layer in found["layers"][:_SHOWN]:
        text.append(
            f"  {layer['milliseconds']:8.3f} ms {layer['share']:6.1%}  {layer['kind']}  "
            f"{layer['name']}  ({layer['part']})"
        )
    return text


def _show_bundle(entry: Mapping[str, Any], console: Console) -> None:
    scenarios = entry["scenarios"]
    console.text(title(entry))
    console.text(conditions_line(entry["conditions"]))
    console.text(self_test_line(entry["self_test"]))
    if found := scenarios.get("latency"):
        console.table("", _COLUMNS, latency_rows(found), right=_RIGHT)
        for line in histogram_lines(found["histograms"][found["candidate"]]):
            console.text(line)
    for line in lines(scenarios):
        console.text(line)
    if entry["layers"]:
        for line in layer_lines(entry["layers"]):
            console.text(line)
    for missing in entry["not_measured"]:
        console.text(f"not measured: {missing['what']}: {missing['why']}")
    for note in entry["notes"]:
        console.warn(note)


def _show_comparison(found: Mapping[str, Any], console: Console) -> None:
    console.text(f"compared with {found['candidate']}, in turns")
    console.text(conditions_line(found["conditions"]))
    if latency := found.get("latency"):
        console.table("", _COLUMNS, latency_rows(latency), right=_RIGHT)
    if through := found.get("throughput"):
        for name, model in through["models"].items():
            text = f"throughput: {name}: {model['images_per_second']:.1f} images/s"
            if ratio := through["ratios"].get(name):
                text += f", an image takes {_interval(ratio)} times the first's"
            console.text(text)
    for name in ("latency", "throughput"):
        for note in found.get(name, {}).get("notes", []):
            console.warn(f"{name}: {note}")


def title(entry: Mapping[str, Any]) -> str:
    """Which bundle, in which runtime."""
    bundle, runtime = entry["bundle"], entry["runtime"]
    return (
        f"{bundle['path']}: {bundle['precision']} for {bundle['target']}, "
        f"{bundle['size_bytes'] / 1e6:.1f} MB, {runtime.get('runtime', bundle['backend'])}, "
        f"{runtime.get('threads', '?')} thread(s), batch {runtime.get('batch') or 'any'}"
    )


def conditions_line(found: Mapping[str, Any]) -> str:
    """The conditions in one line; bench.json has all of them."""
    cores, before = found["cores"], found["before"]
    parts = [found["board"] or found["cpu"] or found["arch"]]
    limit = "" if cores["limit"] is None else f", limited to {cores['limit']:g}"
    parts.append(f"{cores['usable']} of {cores['machine']} cores{limit}")
    if found["governor"]:
        parts.append(f"governor {found['governor']}")
    if before["mhz"]:
        parts.append(f"{before['mhz']:.0f} MHz")
    if found["power_mode"]:
        parts.append(f"power mode {found['power_mode']}")
    if before["celsius"]:
        parts.append(f"{max(before['celsius'].values()):.0f} °C")
    if before["load"] is not None:
        parts.append(f"load {before['load']:.1f}")
    return "on " + ", ".join(parts)


def self_test_line(found: Mapping[str, Any] | None) -> str:
    """What the self-test proved."""
    if found is None:
        return "self-test: not made"
    text = f"self-test: {found['images']} images, finite and the same twice"
    if stored := found["stored"]:
        against = stored.get("against", "stored answers")  # "against": since the second schema
        text += (
            f"; against {against}: logits within {stored['logits_error']:.2%}, top-1 "
            f"{stored['top1_equal']}/{stored['images']}"
        )
        if stored["codes"]:
            text += f", codes {stored['codes_equal']}/{stored['codes']}"
    return text


def latency_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A row a model, the candidate first."""
    rows = []
    for name, latency in found["latencies"].items():
        ratio = found["ratios"].get(name)
        figures = [
            f"{latency[f'{key}_ms']:.2f}"
            for key in ("median", "p90", "p95", "p99", "max", "mean", "jitter")
        ]
        rows.append([name, *figures, str(latency["calls"]), _interval(ratio) if ratio else ""])
    return rows


def histogram_lines(found: Mapping[str, Any]) -> list[str]:
    """A few bars of calls by latency."""
    counts, edges = found["counts"], found["edges_ms"]
    step = -(-len(counts) // _ROWS)
    merged = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    top = max(merged)
    width = len(f"{edges[-1]:.2f}")
    lines = []
    for index, count in enumerate(merged):
        bar = "█" * round(_WIDTH * count / top) or ("▏" if count else "")
        lines.append(f"  {edges[index * step]:{width}.2f} ms  {bar} {count}".rstrip())
    if found["above"]:
        lines.append(f"  {edges[-1]:{width}.2f} and slower: {found['above']}")
    return lines


def lines(scenarios: Mapping[str, Any]) -> list[str]:
    """One line an answer, for every scenario but latency's table."""
    text = []
    if found := scenarios.get("latency"):
        inside = found["in_runtime_ms"][found["candidate"]]
        text.append(f"of which in the runtime: median {inside:.2f} ms")
    if found := scenarios.get("throughput"):
        own = found["models"][found["candidate"]]
        text.append(
            f"throughput: {own['images_per_second']:.1f} images/s, {own['streams']} stream(s), "
            f"batch {own['images']}"
        )
    for name, entry in scenarios.get("cold-start", {}).items():
        phases = ", ".join(f"{key} {value:.0f}" for key, value in entry["phases_ms"].items())
        text.append(
            f"cold start, {_START[name]}: {entry['median_ms']:.0f} ms "
            f"[{entry['min_ms']:.0f}, {entry['max_ms']:.0f}] ({phases})"
        )
    for name, entry in scenarios.get("memory", {}).items():
        gpu = "" if entry["gpu_mib"] is None else f", GPU {entry['gpu_mib']:.0f} MiB"
        text.append(
            f"memory, {_START[name]}: peak {_mib(entry['peak_mib'])}, in use "
            f"{_mib(entry['used_mib'])}, of which Python and runtime "
            f"{_mib(entry['runtime_mib'])}{gpu}"
        )
    if found := scenarios.get("sustained"):
        text.append(
            f"sustained: {found['minutes']:g} min, {found['calls']} calls, median of an interval "
            f"{found['fastest_ms']:.2f} to {found['slowest_ms']:.2f} ms, last third "
            f"{found['drift']:.2f} times the first"
        )
    return [*text, *_energy_lines(scenarios)]


_START: Final = {"first": "compiling", "later": "every later start"}


def _energy_lines(scenarios: Mapping[str, Any]) -> list[str]:
    """What every scenario used, or why that is not known; the same reason is given once."""
    text = {}
    for name, scenario in scenarios.items():
        found = scenario.get("energy")
        if found is None:
            continue
        if found["available"]:
            text[name] = (
                f"energy ({name}): {found['watts']:.1f} W, {found['millijoules_per_image']:.1f} "
                f"mJ an image ({found['source']})"
            )
        else:
            text[found["why"]] = f"energy: not available: {found['why']}"
    return list(text.values())


def _mib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} MiB"


def _interval(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
