"""Several bundles on one page: a column each, and latency against error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bench.document import BenchDocument, BenchSummary, read_bench, read_summary
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.files import write_text
from edgekit.parity.document import ParityDocument, read_graph_parity, read_parity
from edgekit.report.decision import Decision, decide
from edgekit.report.figures.pareto import Choice, pareto
from edgekit.report.figures.svg import signed
from edgekit.report.markup import escaped, paragraph, section, table, whole_page
from edgekit.report.page import REPORT
from edgekit.report.sections.banner import slowest_gain
from edgekit.report.sizes import Sizes, megabytes, sizes_of


@dataclass(frozen=True)
class _Column:
    """One bundle's evidence."""

    mark: str
    bundle: Bundle
    decision: Decision
    sizes: Sizes
    bench: BenchDocument | None
    summary: BenchSummary | None
    parity: ParityDocument | None
    graph: ParityDocument | None

    @property
    def name(self) -> str:
        """Not the whole path: the page is for people elsewhere."""
        folder = "/".join(self.bundle.path.parts[-2:])
        return f"{folder} ({self.bundle.manifest.target.name})"


def write_several(paths: Sequence[Path], output: Path) -> None:
    """Write the page about these bundles to ``output``."""
    write_text(output, several_page([open_bundle(path, any_arch=True) for path in paths]))


def several_page(bundles: Sequence[Bundle]) -> str:
    """The page; self-contained, like that of one bundle."""
    columns = [_column(f"{index + 1}", bundle) for index, bundle in enumerate(bundles)]
    title = f"{len(columns)} bundles side by side"
    rows = [[name, *(value(one) for one in columns)] for name, value in _ROWS]
    head = ("", *(f"{one.mark}: {one.bundle.path.name}" for one in columns))
    choices = [choice for one in columns for choice in _choices(one)]
    figures = [pareto(choices, "corruption error")] if len(choices) > 1 else []
    return whole_page(
        title,
        [
            f"<h1>{escaped(title)}</h1>",
            table(head, [row for row in rows if any(cell != "-" for cell in row[1:])], "texts"),
            *(paragraph(note, "note") for note in _incomparable(columns)),
            section("What can be had for what", *figures),
            *(
                section(
                    f"{one.mark}: {one.name}",
                    paragraph(one.decision.words),
                    *(paragraph(why) for why in one.decision.why),
                )
                for one in columns
            ),
        ],
    )


def _column(mark: str, bundle: Bundle) -> _Column:
    bench, parity, graph = read_bench(bundle), read_parity(bundle), read_graph_parity(bundle)
    summary = read_summary(bundle) if bench is None else bench.summary()
    sizes = sizes_of(bundle.manifest, REPORT, str(bundle.path))
    decision = decide(bundle.manifest, parity, graph)
    return _Column(mark, bundle, decision, sizes, bench, summary, parity, graph)


def _incomparable(columns: Sequence[_Column]) -> list[str]:
    """Why figures in a row may not be compared."""
    notes = []
    places = {one.bench.where for one in columns if one.bench is not None}
    if len(places) > 1:
        notes.append(
            "Latencies are of different machines: each shows what that device can do, not which "
            "bundle is the faster."
        )
    asked = {
        (one.parity.data, one.parity.corruptions, one.parity.severities, one.parity.corrupted)
        for one in columns
        if one.parity is not None
    }
    if len(asked) > 1:
        notes.append(
            "Errors are of different images, corruptions or severities: compare changes against "
            "each one's own reference, not errors."
        )
    references = {one.bundle.manifest.source.checkpoint for one in columns}
    if len(references) > 1:
        notes.append("The bundles are of different checkpoints.")
    return notes


def _choices(one: _Column) -> list[Choice]:
    """The bundle, if both figures are known; the other models are not asked for their errors."""
    own = None if one.summary is None else one.summary.own
    error = None if one.parity is None else one.parity.corruption_error
    if own is None or error is None:
        return []
    half = error.lower - error.delta, error.upper - error.delta
    ends = error.candidate + half[0], error.candidate + half[1]
    return [Choice(one.mark, one.name, own.median_ms, error.candidate, *ends)]


def _change(parity: ParityDocument | None) -> str:
    error = None if parity is None else parity.corruption_error
    if error is None:
        return "-"
    return f"{signed(error.delta)} [{signed(error.lower)}, {signed(error.upper)}]"


def _errors(one: _Column) -> str:
    error = None if one.parity is None else one.parity.corruption_error
    return "-" if error is None else f"{error.reference:.2f} → {error.candidate:.2f}"


def _clean(one: _Column) -> str:
    clean = None if one.parity is None else one.parity.clean_error
    return "-" if clean is None else f"{clean.reference:.2f} → {clean.candidate:.2f}"


def _classes(one: _Column) -> str:
    same = None if one.parity is None else one.parity.top1_agreement
    return "-" if same is None else f"{same.corrupted.estimate:.2%}"


def _codes(one: _Column) -> str:
    codes = None if one.parity is None else one.parity.codes
    return "-" if codes is None else f"{codes.corrupted_agreement.estimate:.2%}"


def _images(one: _Column) -> str:
    return "-" if one.parity is None else f"{one.parity.images:,} of {one.parity.data}"


def _latency(one: _Column) -> str:
    own = None if one.summary is None else one.summary.own
    return "-" if own is None else f"{own.median_ms:.2f}, {own.p99_ms:.2f}"


def _gain(one: _Column) -> str:
    gain = None if one.summary is None else slowest_gain(dict(one.summary.ratios or {}))
    if gain is None:
        return "-"
    return f"{gain[1].median:.2f} [{gain[1].low:.2f}, {gain[1].high:.2f}]"


def _throughput(one: _Column) -> str:
    rate = None if one.summary is None else one.summary.throughput
    return "-" if rate is None else f"{rate.images_per_second:.1f}"


def _start(one: _Column) -> str:
    starts = {} if one.summary is None else one.summary.cold_start_ms or {}
    return "-" if "later" not in starts else f"{starts['later']:.0f}"


def _peak(one: _Column) -> str:
    peaks = {} if one.summary is None else one.summary.peak_memory_mib or {}
    peak = peaks.get("later")
    return "-" if peak is None else f"{peak:.0f}"


def _where(one: _Column) -> str:
    return "-" if one.bench is None else one.bench.where


_ROWS: tuple[tuple[str, Callable[[_Column], str]], ...] = (
    ("decision", lambda one: f"{one.decision.mark} {one.decision.words}"),
    ("target", lambda one: one.bundle.manifest.target.name),
    ("precision", lambda one: one.bundle.manifest.target.precision),
    ("change of corruption error, points", lambda one: _change(one.parity)),
    ("the same, of the graph and not the engine", lambda one: _change(one.graph)),
    ("corruption error", _errors),
    ("clean error, %", _clean),
    ("same class, corrupted", _classes),
    ("same code, corrupted", _codes),
    ("images", _images),
    ("latency p50, p99, ms", _latency),
    ("times as fast as float", _gain),
    ("throughput, images/s", _throughput),
    ("cold start, ms", _start),
    ("peak memory, MiB", _peak),
    ("size", lambda one: megabytes(one.sizes.needed)),
    ("measured on", _where),
)
