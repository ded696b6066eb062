"""Several bundles on one page: a column each, latency against error, and builds over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.files import write_text
from edgekit.parity.document import MeanError, ParityDocument
from edgekit.report.evidence import Evidence, evidence_of, why_incomparable
from edgekit.report.figures.history import Moment, history
from edgekit.report.figures.pareto import Choice, pareto
from edgekit.report.figures.svg import signed
from edgekit.report.markup import escaped, paragraph, section, table, whole_page
from edgekit.report.model_facts import model_facts
from edgekit.report.sections.banner import slowest_gain
from edgekit.report.sizes import megabytes


def write_several(paths: Sequence[Path], output: Path) -> None:
    """Write the page about these bundles to ``output``."""
    write_text(output, several_page([open_bundle(path, any_arch=True) for path in paths]))


def several_page(bundles: Sequence[Bundle]) -> str:
    """The page; self-contained, like that of one bundle."""
    columns = [evidence_of(bundle, f"{index + 1}") for index, bundle in enumerate(bundles)]
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
            *(paragraph(note, "note") for note in _notes(columns)),
            section("What can be had for what", *figures),
            section("Over time", *_histories(columns)),
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


def _notes(columns: Sequence[Evidence]) -> list[str]:
    notes = why_incomparable(columns)
    references = {one.bundle.manifest.source.checkpoint for one in columns}
    if len(references) > 1:
        notes.append("The bundles are of different checkpoints.")
    return notes


def _histories(columns: Sequence[Evidence]) -> list[str]:
    """A figure for each model and target that was built on several dates."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for one in columns:
        manifest = one.bundle.manifest
        backbone = model_facts(manifest, str(one.bundle.path)).backbone
        groups.setdefault((backbone, manifest.target.name), []).append(one)
    return [
        history(f"{backbone} for {target}", [_moment(one) for one in group])
        for (backbone, target), group in groups.items()
        if len({one.bundle.manifest.created for one in group}) > 1
    ]


def _moment(one: Evidence) -> Moment:
    own = None if one.summary is None else one.summary.own
    error = None if one.parity is None else one.parity.corruption_error
    return Moment(
        one.mark,
        _built(one),
        None if error is None else _with_interval(error),
        None if own is None else own.median_ms,
    )


def _with_interval(error: MeanError) -> tuple[float, float, float]:
    """The candidate's error, and the interval of its change around it."""
    middle = error.candidate - error.delta
    return error.candidate, middle + error.lower, middle + error.upper


def _choices(one: Evidence) -> list[Choice]:
    """The bundle, if both figures are known; the other models are not asked for their errors."""
    own = None if one.summary is None else one.summary.own
    error = None if one.parity is None else one.parity.corruption_error
    if own is None or error is None:
        return []
    return [Choice(one.mark, one.name, own.median_ms, *_with_interval(error))]


def _built(one: Evidence) -> str:
    return one.bundle.manifest.created[:16].replace("T", " ")


def _change(parity: ParityDocument | None) -> str:
    error = None if parity is None else parity.corruption_error
    if error is None:
        return "-"
    return f"{signed(error.delta)} [{signed(error.lower)}, {signed(error.upper)}]"


def _errors(one: Evidence) -> str:
    error = None if one.parity is None else one.parity.corruption_error
    return "-" if error is None else f"{error.reference:.2f} → {error.candidate:.2f}"


def _clean(one: Evidence) -> str:
    clean = None if one.parity is None else one.parity.clean_error
    return "-" if clean is None else f"{clean.reference:.2f} → {clean.candidate:.2f}"


def _classes(one: Evidence) -> str:
    same = None if one.parity is None else one.parity.top1_agreement
    return "-" if same is None else f"{same.corrupted.estimate:.2%}"


def _codes(one: Evidence) -> str:
    codes = None if one.parity is None else one.parity.codes
    return "-" if codes is None else f"{codes.corrupted_agreement.estimate:.2%}"


def _images(one: Evidence) -> str:
    return "-" if one.parity is None else f"{one.parity.images:,} of {one.parity.data}"


def _latency(one: Evidence) -> str:
    own = None if one.summary is None else one.summary.own
    return "-" if own is None else f"{own.median_ms:.2f}, {own.p99_ms:.2f}"


def _gain(one: Evidence) -> str:
    gain = None if one.summary is None else slowest_gain(dict(one.summary.ratios or {}))
    if gain is None:
        return "-"
    return f"{gain[1].median:.2f} [{gain[1].low:.2f}, {gain[1].high:.2f}]"


def _throughput(one: Evidence) -> str:
    rate = None if one.summary is None else one.summary.throughput
    return "-" if rate is None else f"{rate.images_per_second:.1f}"


def _start(one: Evidence) -> str:
    starts = {} if one.summary is None else one.summary.cold_start_ms or {}
    return "-" if "later" not in starts else f"{starts['later']:.0f}"


def _peak(one: Evidence) -> str:
    peaks = {} if one.summary is None else one.summary.peak_memory_mib or {}
    peak = peaks.get("later")
    return "-" if peak is None else f"{peak:.0f}"


def _where(one: Evidence) -> str:
    return "-" if one.bench is None else one.bench.where


_ROWS: tuple[tuple[str, Callable[[Evidence], str]], ...] = (
    ("decision", lambda one: f"{one.decision.mark} {one.decision.words}"),
    ("target", lambda one: one.bundle.manifest.target.name),
    ("precision", lambda one: one.bundle.manifest.target.precision),
    ("built, UTC", _built),
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
