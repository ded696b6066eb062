"""A gate's outcome as Markdown, for the summary of a CI step or a comment on a change.

A file may hold the sections of several commands: each replaces its own and leaves the rest, so that
a summary to which all steps write and a comment that is written anew both come out right.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from edgekit.core.console import printable, shortened
from edgekit.metrics.budgets import Judged
from edgekit.report.gate import GatedBundle, GateReport

_END: Final = "<!-- end of edgekit's section -->"
_STATES: Final = {"held": "held", "broken": "**broken**", "undecided": "**undecided**"}
# What begins or ends anything in Markdown or HTML, and what GitHub takes for a link or a mention.
_SPECIAL: Final = re.compile(r"[&<>|`*_\[\]\\~#@$!():]")


def add_section(text: str, report: GateReport) -> str:
    """``text`` with the report's section in place of an earlier one of the same, or at its end."""
    section = f"{_start(report)}\n{to_markdown(report)}{_END}\n"
    begin = text.find(_start(report))
    end = text.find(_END, begin)
    if begin >= 0 and end >= 0:
        return text[:begin] + section + text[end + len(_END) :].removeprefix("\n")
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    return text + gap + section


def to_markdown(report: GateReport) -> str:
    """The report: the verdict, a row a budget, a row a corruption that got worse."""
    lines = [f"### edgekit {report.command}: {report.state}", ""]
    for bundle in report.bundles:
        lines += _bundle(bundle)
    if report.left_out:
        lines += [f"- `{one.name}` is left out: {escaped(one.why)}" for one in report.left_out]
        lines.append("")
    return "\n".join(lines)


def _bundle(bundle: GatedBundle) -> list[str]:
    count, held = len(bundle.budgets), len(bundle.budgets) - len(bundle.not_held)
    lines = [f"{escaped(bundle.name)}: **{bundle.state}**, {held} of {count} budgets held."]
    if bundle.judged == "graph":
        lines += ["", "Judged was its graph, not its engine, which only its device can build."]
    if bundle.reason:
        lines += ["", escaped(bundle.reason)]
    lines.append("")
    if bundle.budgets:
        head = ("budget", "limit", "measured", "state", "note")
        lines += [*_table(head, [_row(row) for row in bundle.budgets]), ""]
    worse = [change for change in bundle.changes if change.worse]
    if worse:
        rows = [
            [escaped(one.corruption.replace("_", " ")), escaped(one.against), one.figures]
            for one in worse
        ]
        lines += ["Corruptions that got worse, beyond their intervals:", ""]
        lines += [*_table(("corruption", "against", "points"), rows), ""]
    if bundle.report is not None:
        target = quote(bundle.report, safe="/", errors="surrogatepass")
        lines += [f"Report: [{escaped(bundle.report)}]({target})", ""]
    return lines


def _row(row: Judged) -> list[str]:
    return [f"`{row.name}`", row.bound, row.figures, _STATES[row.state], escaped(row.note)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def escaped(text: str) -> str:
    """Anybody's text as plain words in one cell of a table."""
    text = " ".join(shortened(printable(text, lines=False)).split())
    text = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)
    return text.replace("www.", "www&#46;")


def _start(report: GateReport) -> str:
    """Invisible, and the same for the same command and bundles."""
    names = "\0".join([report.command, *(bundle.name for bundle in report.bundles)])
    key = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"<!-- edgekit {report.command} {key} -->"
