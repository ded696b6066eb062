"""One HTML page about a bundle: what it is, how fast, how robust, and what was not measured.

The page stands alone: no scripts, no fonts, no images from elsewhere. All that comes out of the
bundle's files is escaped, as the files come from wherever the bundle does.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgekit.bench.document import FILE as BENCH
from edgekit.bundle.engine import EngineState
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.store import Bundle, open_bundle, update_bundle
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import write_text
from edgekit.core.typed_toml import from_dict
from edgekit.model.card import TrainingProtocol
from edgekit.report import figures
from edgekit.report.bench_table import conditions_line, latency_rows, lines, self_test_line

REPORT: Final = "report.html"
_PARITY: Final = "parity.json"
_LATENCY: Final = (
    *("", "p50", "p90", "p95", "p99", "max", "mean", "jitter", "calls"),
    "times the bundle's",
)
_PARITY_COLUMNS: Final = ("corruption", "float %", "bundle %", "difference", "95% interval")

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


def write_report(path: Path, output: Path | None = None) -> Path:
    """Write the report into the bundle, or to ``output``; where it is."""
    bundle = open_bundle(path, any_arch=True)
    page = report_page(bundle)
    if output is not None:
        write_text(output, page)
        return output
    if path.is_file():
        raise UsageError(f"{path} is a .zip and stays as it is: name a file for the report with -o")
    update_bundle(path, reports={REPORT: page.encode()})
    return path / REPORT


def refresh_report(path: Path) -> None:
    """Write a folder's report again, if it has one: its figures have changed."""
    if path.is_dir() and (path / REPORT).exists():
        write_report(path)


def report_page(bundle: Bundle) -> str:
    """The page; the same bundle gives the same text."""
    try:
        return _page(bundle)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise EdgekitError(
            f"{bundle.path}: {BENCH} or {_PARITY} is not as this edgekit writes it "
            f"({type(error).__name__}: {error}): run 'edgekit bench' and 'edgekit parity' again"
        ) from error


def _page(bundle: Bundle) -> str:
    manifest = bundle.manifest
    bench = _document(bundle, BENCH)
    parity = _document(bundle, _PARITY) or manifest.sections.get("parity")
    name = f"{manifest.model.get('backbone', 'model')} for {manifest.target.name}"
    parts = [
        f"<h1>{_text(name)}</h1>",
        _facts(bundle),
        *_speed(bench, manifest),
        *_robustness(parity),
        *_not_measured(manifest, bench, parity),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _facts(bundle: Bundle) -> str:
    manifest = bundle.manifest
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    source = manifest.source
    rows = [
        ("trained with", _seen(manifest)),
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
    origin = manifest.model.get("origin")
    if origin:
        rows.insert(0, ("model", str(origin)))
    cells = "".join(
        f"<tr><td>{_text(k)}</td><td><code>{_text(v)}</code></td></tr>" for k, v in rows
    )
    return f'<h2>Model</h2>\n<table class="facts">{cells}</table>'


def _seen(manifest: Manifest) -> str:
    training = manifest.model.get("training")
    if not isinstance(training, dict):
        return "seen=unknown"
    try:
        return from_dict(TrainingProtocol, training, "the training protocol").describe_seen()
    except UsageError:
        return "seen=unknown"


def _speed(bench: Mapping[str, Any] | None, manifest: Manifest) -> list[str]:
    if bench is None:
        return _quick_speed(manifest.sections.get("bench"))
    parts = [
        "<h2>Speed</h2>",
        f"<p>Measured {_text(bench['measured'])} {_text(conditions_line(bench['conditions']))}; "
        f"{_text(bench['runtime'].get('runtime', ''))}.</p>",
        f"<p>{_text(self_test_line(bench['self_test']))}</p>",
    ]
    scenarios = bench["scenarios"]
    if found := scenarios.get("latency"):
        parts.append(f"<h3>Latency, ms, batch {_text(found['images'])}</h3>")
        parts.append(_table(_LATENCY, latency_rows(found)))
        parts.append(figures.histogram(found["histograms"][found["candidate"]]))
    parts += [f"<p>{_text(line)}</p>" for line in lines(scenarios)]
    if found := scenarios.get("sustained"):
        parts.append(figures.time_series(found["points"]))
    if layers := bench["layers"]:
        parts.append("<h3>Where the time goes</h3>")
        parts.append(
            _table(
                ("part", "ms", "share"),
                [
                    [name, f"{part['ms']:.2f}", f"{part['share']:.1%}"]
                    for name, part in layers["parts"].items()
                ],
            )
        )
    parts += [f'<p class="note">{_text(note)}</p>' for note in bench["notes"]]
    return parts


def _quick_speed(quick: Mapping[str, Any] | None) -> list[str]:
    """The comparison that a build makes."""
    if not quick or "latencies" not in quick:
        return []
    rows = []
    for name, latency in quick["latencies"].items():
        ratio = quick["ratios"].get(name)
        interval = (
            f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else ""
        )
        rows.append([name, f"{latency['median_ms']:.2f}", f"{latency['p99_ms']:.2f}", interval])
    columns = ("", "p50, ms", "p99, ms", "times the bundle's")
    return ["<h2>Speed</h2>", "<p>The build's own short comparison.</p>", _table(columns, rows)]


def _robustness(parity: Mapping[str, Any] | None) -> list[str]:
    if not parity:
        return []
    verdict = str(parity["verdict"])
    parts = [
        "<h2>Robustness</h2>",
        f"<p>Parity with {_text(parity['reference'])} on {_text(parity['images'])} images of "
        f"{_text(parity['data'])}, corrupted {_text(parity['corrupted'])}, severities "
        f"{_text(', '.join(map(str, parity['severities'])))}; trained with "
        f"{_text(parity['seen'])}.</p>",
        f'<p>Verdict: <span class="verdict {_text(verdict)}">{_text(verdict)}</span>. '
        f"{_text('; '.join(parity['reasons']))}</p>",
    ]
    rows = []
    if error := parity.get("corruption_error"):
        rows.append([error["label"], *_figures(error)])
    details = parity.get("per_corruption") or {}
    rows += [[name.replace("_", " "), *_figures(found)] for name, found in details.items()]
    parts.append(_table(_PARITY_COLUMNS, rows))
    if details:
        parts.append(figures.intervals(details))
    return parts


def _figures(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{found['reference']:.2f}",
        f"{found['candidate']:.2f}",
        f"{found['delta']:+.2f}",
        f"[{found['lower']:+.2f}, {found['upper']:+.2f}]",
    ]


def _not_measured(
    manifest: Manifest, bench: Mapping[str, Any] | None, parity: Mapping[str, Any] | None
) -> list[str]:
    """Every gap, with its reason."""
    rows: list[list[str]] = []
    engine = EngineState.of(manifest)
    if engine is not None and engine.pending:
        rows.append(["anything on the device", f"the engine is {engine.describe()}"])
    if bench is None:
        rows.append(["conditions, throughput, cold start, memory", "run 'edgekit bench' on it"])
    else:
        wanted = ("latency", "throughput", "cold-start", "memory", "sustained")
        rows += [
            [name, "not asked for in the latest run of 'edgekit bench'"]
            for name in wanted
            if name not in bench["scenarios"]
        ]
        rows += [[str(gap["what"]), str(gap["why"])] for gap in bench["not_measured"]]
        if bench["layers"] is None:
            rows.append(["time of layers", "asked for with 'edgekit bench --layers'"])
        gaps = [found.get("energy") for found in bench["scenarios"].values()]
        whys = {str(energy["why"]): None for energy in gaps if energy and not energy["available"]}
        rows += [["energy", why] for why in whys]
    if not parity:
        rows.append(["robustness", "run 'edgekit parity' on it"])
    if not rows:
        return []
    cells = "".join(f"<tr><td>{_text(a)}</td><td>{_text(b)}</td></tr>" for a, b in rows)
    return [f'<h2>Not measured</h2>\n<table class="facts">{cells}</table>']


def _document(bundle: Bundle, name: str) -> dict[str, Any] | None:
    """One of the bundle's JSON files; None if it has none."""
    if name not in bundle.manifest.files:
        return None
    try:
        found = json.loads((bundle.folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EdgekitError(f"{bundle.path}: {name} cannot be read: measure again") from error
    return found if isinstance(found, dict) else None


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: object) -> str:
    return html.escape(str(value))
