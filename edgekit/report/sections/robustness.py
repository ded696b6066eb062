"""What compression did to the answers: in figures, by corruption, and by severity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgekit.parity.document import (
    CorruptionChange,
    ErrorChange,
    Estimate,
    MeanError,
    ParityDocument,
)
from edgekit.report import parity_table
from edgekit.report.figures.heatmap import heatmap
from edgekit.report.figures.intervals import by_loss, intervals
from edgekit.report.figures.svg import signed
from edgekit.report.markup import beside, folded, paragraph, section, table

_BESIDE: Final = ("measured", "verdict", "on", "why it is not the one above")
_FIGURES: Final = ("", "reference", "candidate", "difference", "95% interval")
OF_GRAPH: Final = (
    "This is not the engine's robustness. The graph that the engine is built from was run by ONNX "
    "Runtime on the machine that built the bundle: it shows what INT8 in TensorRT's dialect "
    "costs, and nothing of what TensorRT adds on the device."
)
_GATES: Final = ("gate", "limit", "measured", "state")
_STATES: Final = {
    "held": "\N{CHECK MARK} held",
    "broken": "\N{BALLOT X} broken",
    "undecided": "? undecided",
}


def robustness(parity: ParityDocument | None) -> str:
    """The section; nothing without a comparison, which the page says elsewhere."""
    if parity is None:
        return ""
    changes = parity.per_corruption or {}
    gates = parity.gates
    parts = [
        paragraph(OF_GRAPH, "note") if parity.judged == "graph" else "",
        paragraph(_what(parity)),
        *(paragraph(warning, "note") for warning in parity.warnings),
        table(_FIGURES, _rows(parity)),
        *(paragraph(line, "quiet") for line in _labels(parity)),
        _gates(parity),
    ]
    if changes:
        parts += [
            intervals(
                changes, parity.corruption_error, gates.tolerance, gates.max_corruption_delta
            ),
            "<h3>By corruption and severity</h3>",
            *_heatmaps(parity, changes),
        ]
    if parity.beside:
        rows = parity_table.beside_rows(parity)
        parts += ["<h3>Weaker or other comparisons</h3>", table(_BESIDE, rows)]
    title = "Robustness" if parity.judged == "model" else "Robustness of the graph"
    return section(title, *parts)


def _what(parity: ParityDocument) -> str:
    severities = ", ".join(map(str, parity.severities))
    part = ""
    if 0 < parity.severities_per_image < len(parity.severities):
        part = f", {parity.severities_per_image} of them for each image and corruption"
    early = ""
    if parity.saved > 0:
        early = f" It stopped when the data decided, which saved {parity.saved:.0%} of the work."
    return (
        f"Reference: {parity.reference}. Candidate: {parity.candidate}. Both answered the same "
        f"{parity.images:,} of {parity.images_available:,} images of {parity.data}, with "
        f"{len(parity.corruptions)} corruptions ({parity.corrupted}) at the severities "
        f"{severities}{part}.{early}"
    )


def _rows(parity: ParityDocument) -> list[list[str]]:
    """Everything that parity.json holds about both models' answers as a whole."""
    rows = []
    if (clean := parity.clean_error) is not None:
        both = [f"{clean.reference:.2f}%", f"{clean.candidate:.2f}%"]
        rows.append(["clean error", *both, signed(clean.candidate - clean.reference), ""])
    if (error := parity.corruption_error) is not None:
        rows.append(_changed("corruption error", error))
    if (relative := parity.relative_corruption_error) is not None:
        both = [f"{relative.reference:.2f}", f"{relative.candidate:.2f}"]
        change = signed(relative.candidate - relative.reference)
        rows.append(["relative error", *both, change, ""])
    if (top := parity.top5_error) is not None:
        rows.append(_changed("clean error, top-5", top.clean))
        rows.append(_changed("corrupted error, top-5", top.corrupted))
    close = parity.closeness
    if (same := parity.top1_agreement) is not None:
        clean_text, interval = f"{same.clean:.2%}", ""
        if close is not None:
            clean_text, interval = _share(close.same_class_clean)
        rows.append(["same class, clean", "", clean_text, "", interval])
        corrupted, interval = _share(same.corrupted)
        rows.append(["same class, corrupted", "", corrupted, "", interval])
    if (kl := parity.kl_nats) is not None:
        rows.append(["KL divergence, clean (nats)", "", f"{kl.clean:.2g}", "", ""])
        rows.append(["KL divergence, corrupted (nats)", "", f"{kl.corrupted:.2g}", "", ""])
    if close is not None:
        rows.append(["scores off, clean (of RMS)", "", f"{close.scores_rms_clean:.1%}", "", ""])
        off = f"{close.scores_rms_corrupted:.1%}"
        rows.append(["scores off, corrupted (of RMS)", "", off, "", ""])
    return rows


def _labels(parity: ParityDocument) -> list[str]:
    """What the two errors are, exactly."""
    error, relative = parity.corruption_error, parity.relative_corruption_error
    if error is None:
        return []
    text = f"Corruption error: {error.label}, {error.interval} interval."
    return [text if relative is None else f"{text} Relative error: {relative.label}."]


def _changed(name: str, change: MeanError | ErrorChange) -> list[str]:
    return [name, *_figures(change)]


def _figures(change: CorruptionChange | ErrorChange | MeanError) -> list[str]:
    """As in the terminal's table, with true minus signs."""
    return [text.replace("-", "\N{MINUS SIGN}") for text in parity_table.figures(change)]


def _share(same: Estimate) -> tuple[str, str]:
    return f"{same.estimate:.2%}", f"[{same.lower:.2%}, {same.upper:.2%}]"


def _gates(parity: ParityDocument) -> str:
    if not parity.budgets:
        return ""
    rows = [
        [
            f"{one.name} ({one.note})" if one.note else one.name,
            one.bound,
            one.figures,
            _STATES[one.state],
        ]
        for one in parity.budgets
    ]
    return "<h3>Gates</h3>" + table(_GATES, rows)


def _heatmaps(parity: ParityDocument, changes: Mapping[str, CorruptionChange]) -> list[str]:
    """Three panels in one order of rows, and the same as numbers."""
    names, severities = by_loss(changes), parity.severities
    reference = {name: changes[name].errors.reference for name in names}
    candidate = {name: changes[name].errors.candidate for name in names}
    change = {
        name: [b - a for a, b in zip(reference[name], candidate[name], strict=False)]
        for name in names
    }
    errors = [value for rows in (reference, candidate) for row in rows.values() for value in row]
    moved = [abs(value) for row in change.values() for value in row]
    worst, most = max(errors, default=0.0), max(moved, default=0.0)
    hovers = {name: _hovers(name, changes[name], severities) for name in names}
    panels = beside(
        heatmap(
            "Reference, error in %",
            "error",
            severities,
            reference,
            hovers,
            worst,
            note=f"Full color: {worst:.1f}%.",
        ),
        heatmap(
            "Candidate, error in %",
            "error",
            severities,
            candidate,
            hovers,
            worst,
            note=f"Full color: {worst:.1f}%.",
        ),
        heatmap(
            "Difference, points",
            "change",
            severities,
            change,
            hovers,
            most,
            note=f"Orange: worse. Full color: {most:.1f}.",
        ),
    )
    columns = ("corruption", *(f"severity {one}" for one in severities), "change", "95% interval")
    rows = [
        [
            name.replace("_", " "),
            *(f"{a:.1f} → {b:.1f}" for a, b in zip(reference[name], candidate[name], strict=False)),
            *_figures(changes[name])[2:],
        ]
        for name in names
    ]
    return [
        panels,
        paragraph(
            "A cell covers the images that went through it and has no interval of its own; those "
            "of the corruptions, which hold for all of them at once, are in the numbers below.",
            "quiet",
        ),
        folded("The same as numbers: reference → candidate, in %", table(columns, rows)),
    ]


def _hovers(name: str, change: CorruptionChange, severities: tuple[int, ...]) -> list[str]:
    plain, errors = name.replace("_", " "), change.errors
    cells = zip(severities, errors.reference, errors.candidate, strict=False)
    return [
        f"{plain}, severity {severity}: {a:.2f}% to {b:.2f}%, {signed(b - a)} points; over all "
        f"severities {signed(change.delta)} [{signed(change.lower)}, {signed(change.upper)}]"
        for severity, a, b in cells
    ]
