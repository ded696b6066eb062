"""What edgekit says to its user: results on stdout, everything else on stderr.

With ``--json`` stdout carries exactly one JSON document, so that scripts can rely on it.

Names of files, labels, manifests and devices are other people's text: whatever in it could move
the cursor, change the terminal or cannot be encoded is shown as an escape (`printable`).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Console:
    """How much to say and in which form; ``verbosity`` is -1 quiet, 0 normal, 1 and up verbose."""

    as_json: bool = False
    verbosity: int = 0

    def info(self, message: str) -> None:
        """A line on what is happening; silenced by --quiet."""
        if self.verbosity >= 0:
            _to_stderr(message)

    def detail(self, message: str) -> None:
        """A line for --verbose."""
        if self.verbosity >= 1:
            _to_stderr(message)

    def warn(self, message: str) -> None:
        """A line the user should not miss, even with --quiet."""
        _to_stderr(f"warning: {shortened(printable(message))}")

    def error(self, message: str) -> None:
        """Why the command fails."""
        _to_stderr(f"error: {shortened(printable(message))}")

    def document(self, value: Any) -> None:
        """The command's one JSON document (with --json only)."""
        if self.as_json:
            _printed.append(True)
            text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
            # What the pattern finds stands within strings alone, where JSON has escapes for it.
            print(_UNPRINTABLE.sub(lambda m: f"\\u{ord(m[0]):04x}", text), flush=True)

    def text(self, text: str) -> None:
        """A result for people; left out with --json."""
        if not self.as_json:
            print(printable(text), flush=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = ""
    ) -> None:
        """A result table for people; ``right`` names the columns to align right, comma-separated.

        Colors and lines appear on a terminal only; elsewhere columns are plain text.
        """
        if self.as_json:
            return
        numeric = set(right.split(",")) if right else set()
        rows = [[printable(cell, lines=False) for cell in row] for row in rows]
        title = printable(title)
        if not sys.stdout.isatty():
            print(plain_table(title, columns, rows, numeric), flush=True)
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column, justify="right" if column in numeric else "left")
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        Terminal().print(table)

    def track(
        self, items: Iterable[T], total: int, title: str, note: Callable[[], str] = str
    ) -> Iterator[T]:
        """Yield ``items`` with a progress bar and ETA on a terminal, plain lines otherwise.

        ``note`` is asked for what else there is to say, such as a running estimate.
        """
        if self.verbosity < 0:
            yield from items
        elif sys.stderr.isatty():
            yield from self._bar(items, total, title, note)
        else:
            yield from self._lines(items, total, title, note)

    def _bar(
        self, items: Iterable[T], total: int, title: str, note: Callable[[], str]
    ) -> Iterator[T]:
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Terminal(stderr=True)) as progress:
            task = progress.add_task(title, total=total, note="")
            for item in items:
                yield item
                progress.update(task, advance=1, note=note())

    def _lines(
        self, items: Iterable[T], total: int, title: str, note: Callable[[], str]
    ) -> Iterator[T]:
        """A line at most every ten seconds, and one at the end."""
        start = last = time.monotonic()
        done = 0
        try:
            for item in items:
                now = time.monotonic()
                if done and now - last >= 10:
                    remaining = (now - start) / done * (total - done)
                    said = ", ".join(filter(None, (f"about {remaining:.0f} s to go", note())))
                    self.info(f"{title}: {done}/{total}, {said}")
                    last = now
                done += 1
                yield item
        finally:  # some consumers take what they want and never ask again
            self.info(f"{title}: {done}/{total} in {time.monotonic() - start:.1f} s")


_MOST_OF_A_LINE = 2000  # characters of an error or a warning
# C0 and C1 controls but for tab and line feed, halves of UTF-16 pairs (how Python holds what is
# no UTF-8 in a file's name), and what turns the direction of text around.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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
    print(printable(message), file=sys.stderr, flush=True)


class _Log(logging.Handler):
    """Warnings of the modules that have no console, printed as Python does by itself, but safe."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        _to_stderr(record.getMessage())


def set_up_streams() -> None:
    """For a command line: no name stops it, whatever the terminal's encoding is."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # as stderr has from the start
    logging.lastResort = _Log(logging.WARNING)


# Whether the running command has printed its JSON document; there must be only one.
_printed: list[bool] = []


def expect_document() -> None:
    """A command begins: it has not printed its document yet."""
    _printed.clear()


def document_printed() -> bool:
    """Whether stdout already carries the command's JSON document."""
    return bool(_printed)


_STYLES = {
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


def plain_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: set[str]
) -> str:
    """Aligned columns without colors, for pipes and logs."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [title] if title else []
    for cells in (columns, *rows):
        padded = [
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, cell, width in zip(columns, cells, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
