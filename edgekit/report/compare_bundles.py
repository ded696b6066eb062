"""Two bundles: the facts in which they differ, and their evidence side by side."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgekit.bundle.build_record import build_record
from edgekit.bundle.engine import EngineState
from edgekit.bundle.manifest import LABELS
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.documents import plain
from edgekit.parity.document import GRAPH_FILE, GRAPH_SECTION, Estimate, ParityDocument
from edgekit.parity.examples import EXAMPLES, read_examples
from edgekit.report.calibration import read_calibration
from edgekit.report.compared import (
    ComparedReport,
    Difference,
    Facts,
    Figure,
    Measured,
    Subject,
    differences,
    figure,
    subjects,
)
from edgekit.report.evidence import Evidence, evidence_of, why_incomparable
from edgekit.report.page import REPORT
from edgekit.report.sections.banner import slowest_gain

# Compared by what they say; `ComparedReport.figures` has their figures.
_OWN_SECTIONS: Final = frozenset({"parity", GRAPH_SECTION, "bench", "build", "engine", "float"})
_OWN_FILES: Final = frozenset(
    {LABELS, "parity.json", GRAPH_FILE, EXAMPLES, "bench.json", "calibration.json", REPORT}
)
_SHOWN_CLASSES: Final = 5
_WHOLE: Final = "all files"


def compare_bundles(first: Path, second: Path) -> ComparedReport:
    """Open both, with all their checksums, and compare them."""
    a, b = (open_bundle(path, any_arch=True) for path in (first, second))
    of_a, of_b = evidence_of(a, "A"), evidence_of(b, "B")
    different = (*_first(a, b), *differences(_facts(of_a), _facts(of_b)))
    figures = tuple(_figures(of_a, of_b))
    # The whole size changes with any document; that is told where the document is.
    differ = subjects(different, [one for one in figures if one.name != _WHOLE])
    undated = [dataclasses.replace(one.manifest, created="") for one in (a, b)]
    identical = undated[0] == undated[1]
    return ComparedReport(
        kind="bundles",
        a=first,
        b=second,
        identical=identical,
        same_model=a.manifest.identity() == b.manifest.identity(),
        # Without a date, a report or a document may differ in what is not compared here.
        differ=() if identical else differ or ("details of the evidence",),
        differences=different,
        figures=figures,
        notes=() if identical else tuple(_notes(of_a, of_b, differ)),
    )


def _first(a: Bundle, b: Bundle) -> tuple[Difference, ...]:
    """What decides whether they can take each other's place at all."""
    target = "target", ""
    return (
        *differences({target: a.manifest.target.name}, {target: b.manifest.target.name}),
        *_classes(a.labels, b.labels),
    )


def _classes(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[Difference, ...]:
    if a == b:
        return ()
    number = differences({("classes", "number"): f"{len(a)}"}, {("classes", "number"): f"{len(b)}"})
    if set(a) == set(b):
        place = next(
            place for place, pair in enumerate(zip(a, b, strict=False)) if len({*pair}) > 1
        )
        return (*number, Difference("classes", f"order, from {place}", a[place], b[place]))
    return (*number, Difference("classes", "only there", _only(a, b), _only(b, a)))


def _only(names: tuple[str, ...], others: tuple[str, ...]) -> str | None:
    known = set(others)
    own = [name for name in names if name not in known]
    more = f", and {len(own) - _SHOWN_CLASSES:,} more" if len(own) > _SHOWN_CLASSES else ""
    return ", ".join(own[:_SHOWN_CLASSES]) + more if own else None


def _facts(one: Evidence) -> Facts:
    """All that a bundle says of itself, the most important first; no figures of its evidence."""
    bundle, manifest = one.bundle, one.bundle.manifest
    source, record = manifest.source, build_record(manifest, str(bundle.path))
    files = manifest.files
    running = [name for name in files if manifest.is_essential(name) and name != LABELS]
    engine = EngineState.of(manifest)
    target = _flat("target", plain(dataclasses.asdict(manifest.target)))
    for key in ("name", "title", "note"):  # the first is told before, the others are for people
        target.pop(("target", key), None)
    calibration = read_calibration(bundle)
    facts = {
        ("model", "checkpoint"): source.checkpoint,
        **_flat("model", manifest.model),
        **{("weights", name): files[name].sha256 for name in running},
        **target,
        ("target", "architecture"): manifest.arch,
        ("target", "engine"): "" if engine is None else engine.describe(),
        ("runtime", ""): manifest.runtime.requirement,
        **_options(manifest.rebuild_line()),
        ("recipe", "SHA-256"): source.recipe,
        ("calibration", "images"): source.calibration_images,
        ("calibration", "in words"): "" if calibration is None else calibration.describe(),
        ("data", ""): record.data or "",
        ("data", "seed of the split"): f"{record.seed}",
        **_flat("preprocessing", manifest.preprocessing.to_dict()),
        **_flat("versions", manifest.versions),
        ("verdict", ""): one.decision.words,
        ("test images", ""): _shown_images(one),
        ("bench", "measured on"): "" if one.bench is None else one.bench.where,
    }
    for name, section in manifest.sections.items():
        if name not in _OWN_SECTIONS:
            facts |= _flat(name, section if isinstance(section, Mapping) else {"": section})
    others = sorted(set(files) - set(running) - _OWN_FILES)
    facts |= {("files", name): files[name].sha256 for name in others}
    return {key: value for key, value in facts.items() if value}


def _shown_images(one: Evidence) -> str:
    """Which of them the page shows."""
    examples = read_examples(one.bundle, one.parity)
    cells = () if examples is None else examples.cells
    return ", ".join(dict.fromkeys(image.image for cell in cells for image in cell.examples))


def _flat(subject: str, values: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """One level of keys, two where a value has keys itself; anything deeper as JSON."""
    found = {}
    for name, value in values.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for key, leaf in inner:
            if leaf is not None and leaf != "":
                found[subject, ".".join(part for part in (name, key) if part)] = _text(leaf)
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return json.dumps(value, ensure_ascii=False)


def _options(command: str) -> dict[tuple[str, str], str]:
    """The options of the command that builds it again; the target is a fact of its own."""
    found: dict[tuple[str, str], str] = {}
    option = ""
    for word in shlex.split(command)[2:]:
        if word.startswith("--"):
            option = word
            found["options", option] = "given"
        elif option:
            found["options", option] = word
    found.pop(("options", "--target"), None)
    return found


def _figures(a: Evidence, b: Evidence) -> list[Figure]:
    """Every figure that either has."""
    rows = [
        *(figure("size", name, "bytes", value(a), value(b)) for name, value in _SIZES),
        *_of_comparison("parity", "", a.parity, b.parity),
        *_of_comparison("graph's parity", "the graph's ", a.graph, b.graph),
        *(figure("bench", name, unit, value(a), value(b)) for name, unit, value in _BENCH_ROWS),
    ]
    return [row for row in rows if row.a is not None or row.b is not None]


def _of_comparison(
    subject: Subject, whose: str, a: ParityDocument | None, b: ParityDocument | None
) -> Iterator[Figure]:
    """What a comparison measured of each."""
    for name, unit, value in _PARITY_ROWS:
        of_a, of_b = (None if one is None else value(one) for one in (a, b))
        yield figure(subject, whose + name, unit, of_a, of_b)
    changes = [{} if one is None else one.per_corruption or {} for one in (a, b)]
    for name in dict.fromkeys((*changes[0], *changes[1])):
        of_a, of_b = (
            Measured(change[name].candidate) if name in change else None for change in changes
        )
        words = f"{whose}error under {name.replace('_', ' ')}"
        yield figure(subject, words, "%", of_a, of_b, detail=True)


def _size(one: Evidence) -> Measured:
    return Measured(one.sizes.needed)


def _all_files(one: Evidence) -> Measured:
    return Measured(sum(one.sizes.files.values()))


def _change(parity: ParityDocument) -> Measured | None:
    error = parity.corruption_error
    return None if error is None else Measured(error.delta, error.lower, error.upper)


def _corrupted(parity: ParityDocument) -> Measured | None:
    error = parity.corruption_error
    return None if error is None else Measured(error.candidate)


def _reference(parity: ParityDocument) -> Measured | None:
    error = parity.corruption_error
    return None if error is None else Measured(error.reference)


def _clean(parity: ParityDocument) -> Measured | None:
    return None if parity.clean_error is None else Measured(parity.clean_error.candidate)


def _classes_kept(parity: ParityDocument) -> Measured | None:
    same = parity.top1_agreement
    return None if same is None else _percent(same.corrupted)


def _codes_kept(parity: ParityDocument) -> Measured | None:
    codes = parity.codes
    return None if codes is None else _percent(codes.corrupted_agreement)


def _percent(share: Estimate) -> Measured:
    return Measured(100 * share.estimate, 100 * share.lower, 100 * share.upper)


def _latency(one: Evidence) -> Measured | None:
    own = None if one.summary is None else one.summary.own
    return None if own is None else Measured(own.median_ms)


def _slowest(one: Evidence) -> Measured | None:
    own = None if one.summary is None else one.summary.own
    return None if own is None else Measured(own.p99_ms)


def _gain(one: Evidence) -> Measured | None:
    gain = None if one.summary is None else slowest_gain(dict(one.summary.ratios or {}))
    return None if gain is None else Measured(gain[1].median, gain[1].low, gain[1].high)


def _throughput(one: Evidence) -> Measured | None:
    rate = None if one.summary is None else one.summary.throughput
    return None if rate is None else Measured(rate.images_per_second)


def _start(one: Evidence) -> Measured | None:
    start = None if one.summary is None else (one.summary.cold_start_ms or {}).get("later")
    return None if start is None else Measured(start)


def _peak(one: Evidence) -> Measured | None:
    peak = None if one.summary is None else (one.summary.peak_memory_mib or {}).get("later")
    return None if peak is None else Measured(peak)


_SIZES: Final[tuple[tuple[str, Callable[[Evidence], Measured]], ...]] = (
    ("what runs", _size),
    (_WHOLE, _all_files),
)
_PARITY_ROWS: Final[tuple[tuple[str, str, Callable[[ParityDocument], Measured | None]], ...]] = (
    ("change of corruption error", "points", _change),
    ("corruption error", "%", _corrupted),
    ("reference's corruption error", "%", _reference),
    ("clean error", "%", _clean),
    ("same class, corrupted", "%", _classes_kept),
    ("same code, corrupted", "%", _codes_kept),
    ("images judged", "", lambda parity: Measured(parity.images)),
)
_BENCH_ROWS: Final[tuple[tuple[str, str, Callable[[Evidence], Measured | None]], ...]] = (
    ("latency p50", "ms", _latency),
    ("latency p99", "ms", _slowest),
    ("times as fast as float", "", _gain),
    ("throughput", "images/s", _throughput),
    ("cold start", "ms", _start),
    ("peak memory", "MiB", _peak),
)


def _notes(a: Evidence, b: Evidence, differ: tuple[str, ...]) -> list[str]:
    """Doubts, and the commands that measure differences instead of subtracting two figures."""
    notes = why_incomparable([a, b])
    first, second = (shlex.quote(str(one.bundle.path)) for one in (a, b))
    both_judged = a.parity is not None and b.parity is not None
    if both_judged and "parity" in differ and a.bundle.labels == b.bundle.labels:
        notes.append(
            "The difference of two errors has no interval here: "
            f"'edgekit parity {second} --baseline {first}' measures it on the same images."
        )
    if a.summary is not None and b.summary is not None and "bench" in differ:
        notes.append(
            "Each latency was measured in a run of its own: "
            f"'edgekit bench {first} {second} --compare' measures them in turns."
        )
    return notes
