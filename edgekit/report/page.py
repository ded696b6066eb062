"""One HTML page about a bundle: what it is, how fast, how robust, and what was not measured.

The page is self-contained: no scripts, fonts or images from elsewhere. Everything from the bundle's
files is escaped, because they are as untrusted as the bundle.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from edgekit.bench.document import BenchDocument, BenchSummary, read_bench, read_summary
from edgekit.bench.options import SCENARIOS
from edgekit.bundle.engine import EngineState
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import Bundle, open_bundle, update_bundle
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.files import write_text
from edgekit.parity.document import ParityDocument, read_parity
from edgekit.report import bench_table, figures, parity_table
from edgekit.report.bench_table import conditions_line, latency_rows, lines, self_test_line
from edgekit.report.model_facts import ModelFacts, model_facts

REPORT: Final = "report.html"
_LATENCY: Final = (
    *("", "p50", "p90", "p95", "p99", "max", "mean", "jitter", "calls"),
    "times the bundle's",
)
_PARITY_COLUMNS: Final = ("corruption", "float %", "bundle %", "difference", "95% interval")
_BESIDE_BENCH: Final = ("measured", "where", "p50", "throughput", "why it is not the one above")
_BESIDE_PARITY: Final = ("measured", "verdict", "on", "why it is not the one above")

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem;border-bottom:1px solid #d5dbe3}
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e6eaef}
th:first-child,td:first-child{text-align:left}
.facts td{text-align:left;vertical-align:top}.note{background:#fff4d6;padding:.5rem .8rem}
.verdict{font-weight:bold}.pass{color:#17713c}.fail,.undecided,.unlabeled{color:#a3231b}
code{overflow-wrap:anywhere}svg{max-width:100%;height:auto}
"""


@dataclass(frozen=True)
class WrittenReport(Document):
    """A bundle's page."""

    SCHEMA: ClassVar = 1

    bundle: Path
    report: Path
    """The page's file."""


def write_report(path: Path, output: Path | None = None) -> Path:
    """Write the report into the bundle, or to ``output``; returns its path."""
    bundle = open_bundle(path, any_arch=True)
    page = report_page(bundle)
    if output is not None:
        write_text(output, page)
        return output
    if path.is_file():
        raise UsageError(
            f"{path} is a .zip and stays unchanged: name a file for the report with -o"
        )
    update_bundle(path, reports={REPORT: page.encode()})
    return path / REPORT


def refresh_report(path: Path) -> None:
    """Rewrite a bundle's report, if it has one, after its figures have changed."""
    if path.is_dir() and (path / REPORT).exists():
        write_report(path)


def report_page(bundle: Bundle) -> str:
    """The page; the same bundle gives the same text."""
    manifest = bundle.manifest
    model = model_facts(manifest, str(bundle.path))
    bench, parity = read_bench(bundle), read_parity(bundle)
    name = f"{model.backbone} for {manifest.target.name}"
    parts = [
        f"<h1>{escaped(name)}</h1>",
        _facts(bundle, model),
        *(_quick_speed(read_summary(bundle)) if bench is None else _speed(bench)),
        *_robustness(parity),
        *_not_measured(manifest, bench, parity),
    ]
    return whole_page(name, parts)


def whole_page(title: str, parts: Sequence[str]) -> str:
    """A self-contained page of these parts, which are HTML."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _facts(bundle: Bundle, model: ModelFacts) -> str:
    manifest = bundle.manifest
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    source = manifest.source
    rows = [
        ("trained with", model.training.describe_seen()),
        ("classes", str(manifest.classes)),
        ("images", f"{manifest.input.height} x {manifest.input.width} px, uint8 RGB"),
        ("target", f"{manifest.target.title} ({manifest.target.backend})"),
        ("precision", manifest.target.precision),
        ("runtime", f"{manifest.runtime.name} {manifest.runtime.version}"),
        ("size", f"{size:.1f} MB"),
        ("built with", manifest.rebuild_line()),  # no date: equal builds have equal reports
        ("tools", ", ".join(f"{name} {text}" for name, text in manifest.versions.items())),
        ("checkpoint", source.checkpoint or "not recorded"),
        ("calibration images", source.calibration_images or "none"),
        ("recipe", source.recipe or "none"),
        ("identity", manifest.identity()),
    ]
    if model.origin:
        rows.insert(0, ("model", model.origin))
    cells = "".join(
        f"<tr><td>{escaped(k)}</td><td><code>{escaped(v)}</code></td></tr>" for k, v in rows
    )
    return f'<h2>Model</h2>\n<table class="facts">{cells}</table>'


def _speed(bench: BenchDocument) -> list[str]:
    at = "" if bench.device is None else f"on {bench.device.name}, "
    parts = [
        "<h2>Speed</h2>",
        f"<p>Measured {escaped(bench.measured)} {escaped(at + conditions_line(bench.conditions))}; "
        f"{escaped(bench.runtime.get('runtime', ''))}.</p>",
        f"<p>{escaped(self_test_line(bench.self_test))}</p>",
    ]
    if latency := bench.scenarios.latency:
        parts.append(f"<h3>Latency, ms, batch {escaped(latency.images)}</h3>")
        parts.append(table(_LATENCY, latency_rows(latency)))
        parts.append(figures.histogram(latency.histograms[latency.candidate]))
    parts += [f"<p>{escaped(line)}</p>" for line in lines(bench.scenarios)]
    if sustained := bench.scenarios.sustained:
        parts.append(figures.time_series(sustained.points))
    if bench.layers is not None:
        shares = bench.layers.parts.items()
        rows = [[name, f"{part.ms:.2f}", f"{part.share:.1%}"] for name, part in shares]
        parts.append("<h3>Where the time goes</h3>")
        parts.append(table(("part", "ms", "share"), rows))
    parts += [f'<p class="note">{escaped(note)}</p>' for note in bench.notes]
    if bench.beside:
        parts.append("<h3>Weaker or other measurements</h3>")
        parts.append(table(_BESIDE_BENCH, bench_table.beside_rows(bench)))
    return parts


def _quick_speed(quick: BenchSummary | None) -> list[str]:
    """The build's own comparison."""
    if quick is None or not quick.latencies:
        return []
    rows = []
    for name, latency in quick.latencies.items():
        ratio = (quick.ratios or {}).get(name)
        times = "" if ratio is None else bench_table.interval(ratio)
        rows.append([name, f"{latency.median_ms:.2f}", f"{latency.p99_ms:.2f}", times])
    columns = ("", "p50, ms", "p99, ms", "times the bundle's")
    return ["<h2>Speed</h2>", "<p>The build's own short comparison.</p>", table(columns, rows)]


def _robustness(parity: ParityDocument | None) -> list[str]:
    if parity is None:
        return []
    verdict = parity.verdict
    reasons = list(parity.reasons)
    if parity.looks > 1:
        reasons.append(parity_table.looks_line(parity))
    parts = [
        "<h2>Robustness</h2>",
        f"<p>Parity with {escaped(parity.reference)} on {escaped(parity.images)} images of "
        f"{escaped(parity.data)}, corrupted {escaped(parity.corrupted)}, severities "
        f"{escaped(', '.join(map(str, parity.severities)))}; trained with "
        f"{escaped(parity.seen)}.</p>",
        f'<p>Verdict: <span class="verdict {escaped(verdict)}">{escaped(verdict)}</span>. '
        f"{escaped('; '.join(reasons))}</p>",
    ]
    rows = []
    if error := parity.corruption_error:
        rows.append([error.label, *parity_table.figures(error)])
    changes = parity.per_corruption or {}
    rows += [
        [name.replace("_", " "), *parity_table.figures(change)] for name, change in changes.items()
    ]
    parts.append(table(_PARITY_COLUMNS, rows))
    if changes:
        parts.append(figures.intervals(changes))
    if parity.beside:
        parts.append("<h3>Weaker or other comparisons</h3>")
        parts.append(table(_BESIDE_PARITY, parity_table.beside_rows(parity)))
    return parts


def _not_measured(
    manifest: Manifest, bench: BenchDocument | None, parity: ParityDocument | None
) -> list[str]:
    """Every gap, with its reason."""
    rows: list[list[str]] = []
    engine = EngineState.of(manifest)
    if engine is not None and engine.pending:
        rows.append(["anything on the device", f"the engine is {engine.describe()}"])
    if bench is None:
        rows.append(["conditions, throughput, cold start, memory", "run 'edgekit bench' on it"])
    else:
        measured = bench.scenarios.measured()
        rows += [
            [name, "not requested in that run of 'edgekit bench'"]
            for name in SCENARIOS
            if name not in measured
        ]
        rows += [[gap.what, gap.why] for gap in bench.not_measured]
        if bench.layers is None:
            rows.append(["time of layers", "run 'edgekit bench --layers' on it"])
        energies = bench.scenarios.energies().values()
        whys = {str(energy.why): None for energy in energies if not energy.available}
        rows += [["energy", why] for why in whys]
    if parity is None:
        rows.append(["robustness", "run 'edgekit parity' on it"])
    if not rows:
        return []
    cells = "".join(f"<tr><td>{escaped(a)}</td><td>{escaped(b)}</td></tr>" for a, b in rows)
    return [f'<h2>Not measured</h2>\n<table class="facts">{cells}</table>']


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, as HTML."""
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def escaped(value: object) -> str:
    """Anybody's text, as HTML."""
    return html.escape(str(value))
