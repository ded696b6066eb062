"""Output to the user: results on stdout, everything else on stderr.

With ``--json`` stdout carries exactly one JSON document, so scripts can rely on it.

Names of files, labels, manifests and devices are other people's text: anything in them that could
move the cursor, change the terminal or not be encoded is shown as an escape (`printable`).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from edgekit.core.documents import Document
from edgekit.core.tables import Table, fold, layout, plain


@dataclass(frozen=True)
class Console:
    """How much to print, and how; ``verbosity`` is -1 quiet, 0 normal, 1 and up verbose."""

    as_json: bool = False
    verbosity: int = 0

    def info(self, message: str) -> None:
        """Print a line of progress; silenced by --quiet."""
        if self.verbosity >= 0:
            _to_stderr(message)

    def detail(self, message: str) -> None:
        """Print a line for --verbose."""
        if self.verbosity >= 1:
            _to_stderr(message)

    def warn(self, message: str) -> None:
        """Print a line the user must not miss, even with --quiet."""
        _to_stderr(f"warning: {shortened(printable(message))}")

    def error(self, message: str) -> None:
        """Print why the command fails."""
        _to_stderr(f"error: {shortened(printable(message))}")

    def traceback(self, error: BaseException) -> None:
        """Print where code that is not ours failed."""
        print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)

    def document(self, document: Document) -> None:
        """Print the command's only JSON document (only with --json)."""
        if self.as_json:
            _printed.append(True)
            print(json_text(document), flush=True)

    def text(self, text: str) -> None:
        """Print a result for people; left out with --json."""
        if not self.as_json:
            print(printable(text), flush=True)

    def csv_row(self, cells: Sequence[object]) -> None:
        """Print a line of CSV; in a pipe or a file names are as they are, line ends quoted."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        text = line.getvalue()
        print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)

    def prose(self, text: str, indent: str = "  ") -> None:
        """Print sentences for people, in lines that fit; ``indent`` is of all but the first."""
        if not self.as_json:
            width = terminal_width(sys.stdout) or _PROSE
            print("\n".join(fold(printable(text), width, indent)), flush=True)

    def table(self, table: Table, rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Print a result table that fits the terminal; elsewhere all of it, without colors."""
        if self.as_json:
            return
        rows = [[printable(cell, lines=False) for cell in row] for row in rows]
        lines = layout(table, rows, printable(title), terminal_width(sys.stdout))
        if not sys.stdout.isatty():
            print(plain(lines), flush=True)
            return
        from rich.console import Console as Terminal
        from rich.text import Text

        terminal = Terminal(highlight=False)
        for line in lines:
            pieces = ((piece.text, _STYLES.get(piece.role, "")) for piece in line)
            terminal.print(Text.assemble(*pieces), soft_wrap=True)


_PROSE = 80  # columns, where there is no terminal, or one that does not say
_MOST_OF_A_LINE = 2000  # characters of an error or a warning
# C0 and C1 controls except tab and line feed, halves of UTF-16 pairs (how Python represents what is
# not UTF-8 in a file's name), and characters that change the direction of text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def json_text(document: Document) -> str:
    """The document as --json prints it."""
    value = document.to_dict()
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # The pattern matches only inside strings, where JSON has escapes for it.
    return _UNPRINTABLE.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def printable(text: str, *, lines: bool = True) -> str:
    """``text`` with escapes such as ``\\x1b`` for what a terminal would obey or cannot show."""
    if not lines:
        text = text.replace("\t", "\\t").replace("\n", "\\n")
    return _UNPRINTABLE.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


def shortened(message: str) -> str:
    """``message`` without its middle, if it is endless: names and headers may have 100,000 letters.

    What is wrong stands at the beginning, what to do at the end.
    """
    if len(message) <= _MOST_OF_A_LINE:
        return message
    head, tail = message[: 2 * _MOST_OF_A_LINE // 3], message[-_MOST_OF_A_LINE // 4 :]
    return f"{head} ... {len(message) - len(head) - len(tail)} characters left out ... {tail}"


def _to_stderr(message: str) -> None:
    """Folded on a terminal; in a log a message is a line, to be found by its words."""
    lines = fold(printable(message), terminal_width(sys.stderr), "  ")
    print("\n".join(lines), file=sys.stderr, flush=True)


def terminal_width(stream: TextIO) -> int | None:
    """The columns of a terminal, or None for a pipe or a file.

    Not from COLUMNS: whoever imports Python's readline hands it to all processes that it starts.
    """
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or _PROSE
    except OSError:
        return _PROSE


class _Log(logging.Handler):
    """Prints warnings of modules that have no console, as Python does by default, but escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        _to_stderr(record.getMessage())


def set_up_streams() -> None:
    """For a command line: no name can make it fail, whatever the terminal's encoding."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # as stderr has from the start
    logging.lastResort = _Log(logging.WARNING)


# Whether the running command has printed its JSON document; there must be only one.
_printed: list[bool] = []


def expect_document() -> None:
    """Mark the start of a command, which has not printed its document yet."""
    _printed.clear()


def document_printed() -> bool:
    """Whether stdout already carries the command's JSON document."""
    return bool(_printed)


_STYLES = {
    "title": "bold",
    "head": "bold",
    "ok": "green",
    "pass": "bold green",
    "missing": "red",
    "fail": "bold red",
    "undecided": "bold yellow",
    "unlabeled": "bold yellow",
    "warning": "yellow",
    "worse": "red",
    "better": "green",
}
