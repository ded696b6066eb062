"""Several artifacts on a terminal: who they are, how they agree, what each has lost."""

from __future__ import annotations

from typing import Final

from edgekit.core.console import Console
from edgekit.core.tables import Column, Table
from edgekit.parity.across_document import AcrossDocument
from edgekit.parity.document import Estimate
from edgekit.report.parity_table import work

PAIRS: Final = Table.of(
    "pair",
    Column("clean %", "figure"),
    Column("95% interval", "figure", drop=1),
    Column("corrupted %", "figure"),
    Column("interval", "figure"),
)
ERRORS: Final = Table.of(
    "",
    Column("clean error", "figure", drop=1),
    Column("corruption error", "figure", drop=2),
    Column("difference", "figure"),
    Column("95% interval", "figure"),
    "verdict",
)


def show(console: Console, document: AcrossDocument) -> None:
    """Print it all; only names and paths may need more than 80 columns."""
    for text, indent in legend(document):
        console.prose(text, indent)
    letters = [one.letter for one in document.artifacts]
    if len(letters) > 2:
        title = "same class, %: corrupted above the diagonal, clean below"
        head = Table.of("", *(Column(letter, "figure") for letter in letters))
        console.table(head, matrix(document), title)
    console.table(PAIRS, pair_rows(document))
    if rows := error_rows(document):
        console.table(ERRORS, rows)
    for line in lines(document):
        console.prose(line)


def legend(document: AcrossDocument) -> list[tuple[str, str]]:
    """Each artifact's letter, name, what really executed, and how images reach it; indents."""
    found = []
    for one in document.artifacts:
        role = " (reference)" if one.letter == document.reference else ""
        found.append((f"{one.letter}  {one.name}{role}", "   "))
        found += [(f"   {text}", "   ") for text in (one.executed.described, one.images)]
    severities = ",".join(map(str, document.severities))
    text = (
        f"{document.images:,} of {document.images_available:,} images of {document.data}, "
        f"corrupted {document.corrupted}, severities {severities}"
    )
    return [*found, (text, "")]


def matrix(document: AcrossDocument) -> list[list[str]]:
    """Agreement in percent: of corrupted images above the diagonal, of clean ones below."""
    pairs = {(pair.one, pair.other): pair for pair in document.agreement}
    rows = []
    for row in document.artifacts:
        cells = [row.letter]
        for column in document.artifacts:
            if row.letter == column.letter:
                cells.append("-")
            elif row.letter < column.letter:
                cells.append(f"{100 * pairs[row.letter, column.letter].corrupted.estimate:.2f}")
            else:
                cells.append(f"{100 * pairs[column.letter, row.letter].clean.estimate:.2f}")
        rows.append(cells)
    return rows


def pair_rows(document: AcrossDocument) -> list[list[str]]:
    """Every pair with its intervals."""
    return [
        [f"{pair.one} {pair.other}", *_percent(pair.clean), *_percent(pair.corrupted)]
        for pair in document.agreement
    ]


def error_rows(document: AcrossDocument) -> list[list[str]]:
    """Errors in percent, and each one's difference from the reference in points."""
    rows = []
    for one in document.artifacts:
        if one.clean_error is None or one.corruption_error is None:
            return []
        change, verdict = one.change, one.verdict or "reference"
        difference = interval = ""
        if change is not None:
            difference = f"{change.delta:+.2f}"
            interval = f"[{change.lower:+.2f}, {change.upper:+.2f}]"
        errors = f"{one.clean_error:.2f}", f"{one.corruption_error:.2f}"
        rows.append([one.letter, *errors, difference, interval, verdict])
    return rows


def lines(document: AcrossDocument) -> list[str]:
    """The odd one out, the work, and the reasons."""
    reasons = [f"{one.letter} {reason}" for one in document.artifacts for reason in one.reasons]
    doubt = [f"warning: {text}"] if (text := document.doubt()) else []
    return [document.odd_one_out.sentence, work(document), *doubt, *reasons]


def failure(document: AcrossDocument) -> str:
    """The one line that says why it did not pass."""
    parts = [
        f"{one.letter} ({one.name}) {one.verdict}"
        for one in document.artifacts
        if one.verdict not in (None, "pass")
    ]
    return f"parity {document.verdict}: {'; '.join(parts)}; {document.odd_one_out.sentence}"


def _percent(value: Estimate) -> list[str]:
    return [
        f"{100 * value.estimate:.2f}",
        f"[{100 * value.lower:.2f}, {100 * value.upper:.2f}]",
    ]
