"""Several artifacts on one HTML page: the matrix in colors, what really computed, who has lost."""

from __future__ import annotations

from edgekit.parity.across_document import AcrossDocument
from edgekit.report.across_table import error_rows, matrix, pair_rows
from edgekit.report.markup import escaped, table, whole_page

_ERRORS = ("", "clean error %", "corruption error %", "difference", "95% interval", "verdict")
_PAIRS = ("pair", "clean %", "95% interval", "corrupted %", "95% interval")


def across_page(document: AcrossDocument) -> str:
    """The page; self-contained, like a bundle's report."""
    title = "parity across " + ", ".join(one.name for one in document.artifacts)
    verdict = document.verdict
    severities = ", ".join(map(str, document.severities))
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f'<p>Verdict: <span class="verdict {escaped(verdict)}">{escaped(verdict)}</span>. '
        f"{escaped(document.odd_one_out.sentence)}.</p>",
        f"<p>{document.images:,} of {document.images_available:,} images of "
        f"{escaped(document.data)}, corrupted {escaped(document.corrupted)}, severities "
        f"{escaped(severities)}; measured {escaped(document.measured)}.</p>",
        "<h2>What really computed</h2>",
        _who(document),
        "<h2>Agreement</h2>",
        "<p>Same class, %: corrupted images above the diagonal, clean ones below.</p>",
        _matrix(document),
        table(_PAIRS, pair_rows(document)),
    ]
    if rows := error_rows(document):
        parts += ["<h2>Errors</h2>", table(_ERRORS, rows)]
    if doubt := document.doubt():
        parts.append(f'<p class="note">{escaped(doubt)}</p>')
    reasons = [f"{one.letter} {reason}" for one in document.artifacts for reason in one.reasons]
    return whole_page(title, parts + [f"<p>{escaped(reason)}</p>" for reason in reasons])


def _who(document: AcrossDocument) -> str:
    rows = []
    for one in document.artifacts:
        role = " (reference)" if one.letter == document.reference else ""
        note = ' class="note"' if one.executed.fell_back else ""
        rows.append(
            f"<tr><td>{one.letter}</td><td><code>{escaped(one.name)}</code>{role}</td>"
            f"<td{note}>{escaped(one.executed.described)}</td><td>{escaped(one.images)}</td></tr>"
        )
    return f'<table class="facts">{"".join(rows)}</table>'


def _matrix(document: AcrossDocument) -> str:
    """The less two agree, the redder their cell; full red at half of all images."""
    letters = [one.letter for one in document.artifacts]
    rows = ["<tr><th></th>" + "".join(f"<th>{letter}</th>" for letter in letters) + "</tr>"]
    for row in matrix(document):
        cells = [f"<td>{row[0]}</td>"]
        for text in row[1:]:
            lost = 0.0 if text == "-" else min(1.0, (100 - float(text)) / 50)
            cells.append(f'<td style="background:rgba(163,35,27,{lost:.2f})">{text}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"
