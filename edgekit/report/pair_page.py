"""A comparison of any two classifiers on one HTML page: verdict, what computed, what was lost."""

from __future__ import annotations

from edgekit.parity.document import ParityDocument
from edgekit.parity.examples import Examples
from edgekit.report.markup import escaped, facts, table, whole_page
from edgekit.report.parity_table import WARNING, head, lines, rows
from edgekit.report.sections.look import look

_GATES = ("gate", "limit", "measured [95% interval]", "state", "")


def pair_page(document: ParityDocument, examples: Examples | None = None) -> str:
    """The page; self-contained, like a bundle's report."""
    title = f"parity of {document.candidate}"
    verdict, error = document.verdict, document.corruption_error
    severities = ", ".join(map(str, document.severities))
    change = ""
    if error is not None:
        change = (
            f" Corruption error {error.reference:.2f}% → {error.candidate:.2f}%: "
            f"{error.delta:+.2f} [{error.lower:+.2f}, {error.upper:+.2f}] points."
        )
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f'<p>Verdict: <span class="verdict {escaped(verdict)}">{escaped(verdict)}</span>.'
        f"{escaped(change)}</p>",
        f"<p>{document.images:,} of {document.images_available:,} images of "
        f"{escaped(document.data)}, corrupted {escaped(document.corrupted)}, severities "
        f"{escaped(severities)}; measured {escaped(document.measured)}.</p>",
        *(f'<p class="note">{escaped(text)}</p>' for text in document.warnings),
        "<h2>What was compared</h2>",
        _who(document),
    ]
    if errors := rows(document):
        columns = [column.name for column in head(document).columns]
        parts += ["<h2>Errors, %</h2>", table(columns, errors)]
    if document.budgets:
        gates = [
            [row.name, row.bound, row.figures, row.state, row.note] for row in document.budgets
        ]
        parts += ["<h2>Gates</h2>", table(_GATES, gates)]
    said = [line for line in lines(document) if not line.startswith(WARNING)]  # those are above
    parts += [f"<p>{escaped(line)}</p>" for line in said]
    return whole_page(title, [part for part in (*parts, look(examples, document)) if part])


def _who(document: ParityDocument) -> str:
    told = document.sides
    named = (
        ("reference", document.reference if told is None else told.reference),
        ("candidate", document.candidate if told is None else told.candidate),
    )
    return facts(named)
