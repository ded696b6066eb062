"""The parity report on a terminal: a row per corruption, and the totals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgekit.core.console import Console
from edgekit.core.tables import Column, Table
from edgekit.parity.document import (
    CodeAgreement,
    CorruptionChange,
    ErrorChange,
    Estimate,
    MeanError,
    ParityDocument,
    SweepDocument,
)

WARNING: Final = "warning: "
_BARS = "▁▂▃▄▅▆▇█"


def show(console: Console, document: ParityDocument) -> None:
    """Print it all."""
    for line in header(document):
        console.prose(line)
    if table := rows(document):
        console.table(head(document), table)
    for line in lines(document):
        console.prose(line)


def head(document: ParityDocument) -> Table:
    """The table's head; a foreign reference need not be a float model."""
    models = ("float", "bundle") if document.sides is None else ("reference", "candidate")
    return Table.of(
        Column("corruption", "prose"),
        Column(models[0], "figure", drop=2),
        Column(models[1], "figure", drop=3),
        Column("difference", "figure"),
        Column("95% interval", "figure"),
        Column("severity", drop=1),
        "",
    )


def header(document: ParityDocument) -> list[str]:
    """What was compared on which images; the training protocol always comes first."""
    severities = ",".join(map(str, document.severities))
    sides = document.sides
    first = [f"trained with {document.seen}"]
    if sides is not None:
        first = [f"reference {sides.reference}", f"candidate {sides.candidate}"]
    return [
        *first,
        f"{document.reference} -> {document.candidate}, {document.images:,} of "
        f"{document.images_available:,} images of {document.data}, corrupted "
        f"{document.corrupted}, severities {severities}",
    ]


def rows(document: ParityDocument) -> list[list[str]]:
    """A row for each corruption, then the mean with the verdict; errors in percent.

    "worse" and "better" mark changes that the simultaneous intervals show; the bars are the
    bundle's errors by severity, from 0 to 100%.
    """
    changes, error, clean = (
        document.per_corruption,
        document.corruption_error,
        document.clean_error,
    )
    if changes is None or error is None or clean is None:
        return []
    table = [
        [
            name.replace("_", " ") + ("" if change.averaged else " (not averaged)"),
            *figures(change),
            sparkline(change.errors.candidate),
            "worse" if change.lower > 0 else "better" if change.upper < 0 else "",
        ]
        for name, change in changes.items()
    ]
    change = clean.candidate - clean.reference
    first = ["clean", f"{clean.reference:.2f}", f"{clean.candidate:.2f}", f"{change:+.2f}"]
    # The title says over which corruptions and severities.
    last = [error.label.partition(" over ")[0], *figures(error), "", document.verdict]
    return [[*first, "", "", ""], *table, *_top_five(document), last]


def _top_five(document: ParityDocument) -> list[list[str]]:
    errors = document.top5_error
    if errors is None:
        return []
    parts = ("clean, top-5", errors.clean), ("corrupted, top-5", errors.corrupted)
    return [[name, *figures(change), "", ""] for name, change in parts]


def figures(change: CorruptionChange | ErrorChange | MeanError) -> list[str]:
    """Both errors, their difference, and its interval."""
    return [
        f"{change.reference:.2f}",
        f"{change.candidate:.2f}",
        f"{change.delta:+.2f}",
        f"[{change.lower:+.2f}, {change.upper:+.2f}]",
    ]


def lines(document: ParityDocument) -> list[str]:
    """The figures below the table, and the verdict's reasons."""
    text = []
    if relative := document.relative_corruption_error:
        text.append(f"{relative.label}: {relative.reference:.2f} -> {relative.candidate:.2f}")
    top, kl = document.top1_agreement, document.kl_nats
    if top is not None and kl is not None:
        close = document.closeness
        clean = f"{100 * top.clean:.2f}%" if close is None else _share(close.same_class_clean)
        models = "float || bundle" if document.sides is None else "reference || candidate"
        text.append(
            f"same class: clean {clean}, corrupted {_share(top.corrupted)}; KL({models}): clean "
            f"{kl.clean:.2g}, corrupted {kl.corrupted:.2g} nats"
        )
        if close is not None:
            text.append(
                f"scores off by {100 * close.scores_rms_clean:.2g}% of their RMS on clean images, "
                f"{100 * close.scores_rms_corrupted:.2g}% on corrupted ones"
            )
    engine = document.reference_engine
    if engine is not None and engine.checked_by is not None:
        text.append(
            f"{engine.answers} answered for {engine.checked_by}, which checked "
            f"{engine.checked:,} of {engine.checked + engine.answered:,} answers: equal, with "
            f"{engine.ties} ties"
        )
    if document.codes is not None:
        text += _codes(document.codes)
    text.append(work(document))
    if document.looks > 1:
        text.append(looks_line(document))
    checked = document.reference_check
    if checked is not None and (doubt := checked.sentence(document.reference)):
        text.append(f"{WARNING}{doubt}")
    text += document.reasons
    if document.worst and document.verdict != "pass" and document.per_corruption is not None:
        deltas = document.per_corruption
        lost = (f"{name} {deltas[name].delta:+.2f}" for name in document.worst)
        text.append("lost most on " + ", ".join(lost).replace("_", " "))
    return text


def looks_line(document: ParityDocument) -> str:
    """How often this bundle was compared: a verdict after many attempts is worth less."""
    return f"this bundle was compared {document.looks} times in all"


def beside_rows(document: ParityDocument) -> list[list[str]]:
    """A row for each comparison that is not the bundle's evidence."""
    return [
        [
            run.measured,
            run.verdict,
            f"{run.images:,} of {run.images_available:,} images of {run.data}"
            + ("" if run.device is None else f" on {run.device}"),
            run.why,
        ]
        for run in sorted(document.beside, key=lambda run: run.measured, reverse=True)
    ]


def _share(same: Estimate) -> str:
    lower, upper = 100 * same.lower, 100 * same.upper
    return f"{100 * same.estimate:.2f}% [{lower:.2f}, {upper:.2f}]"


def _codes(codes: CodeAgreement) -> list[str]:
    usage = codes.usage.reference
    text = [
        f"same code: clean {100 * codes.clean_agreement:.2f}%, corrupted "
        f"{100 * codes.corrupted_agreement.estimate:.2f}%; {usage.used} of "
        f"{usage.size} codes in use, perplexity {usage.perplexity:.0f}"
    ]
    margins = codes.margins
    flipped = None if margins is None else margins.median(margins.flipped)
    if margins is not None and flipped is not None:
        agreeing = margins.median(margins.agreeing)
        elsewhere = "" if agreeing is None else f", {agreeing:.2g} elsewhere"
        text.append(f"median margin of the lookup: {flipped:.2g} where the code flipped{elsewhere}")
    return text


def work(document: SweepDocument) -> str:
    """How much was computed, and what an early stop saved."""
    total = document.inferences + document.inferences_cached
    text = f"{document.inferences:,} of {total:,} inferences done now"
    text += f" in {document.seconds:.0f} s" if document.inferences else ", the rest was cached"
    if document.saved > 0:
        text += f"; stopping early saved {100 * document.saved:.0f}% of the full sweep"
    return text


def sparkline(percentages: Sequence[float]) -> str:
    """Errors by increasing severity as bars, 0 to 100%."""
    return "".join(_BARS[max(0, min(7, int(value / 12.5)))] for value in percentages)
