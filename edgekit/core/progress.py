"""Progress of a long loop: a bar with ETA on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console as Terminal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgekit.core.console import Console, printable

_EVERY = 10.0  # seconds


class ProgressBar:
    """Like `Console.track`, but with figures beside the bar that change as the loop runs."""

    def __init__(self, console: Console, title: str, total: int, done: int = 0) -> None:
        self._console, self._title, self._total, self._done = console, title, total, done
        self._skipped = done  # not done by this process, so not counted in its speed
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.verbosity >= 0 and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Terminal(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, completed=done, figures="")

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1, figures: str = "") -> None:
        """Record that ``count`` more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, figures=figures)
            return
        now = time.monotonic()
        if now - self._last >= _EVERY and self._done < self._total:
            speed = (self._done - self._skipped) / (now - self._start)
            remaining = (self._total - self._done) / speed
            text = f"{self._title}: {self._done}/{self._total}, about {remaining:.0f} s to go"
            self._console.info(f"{text}  {figures}".rstrip())
            self._last = now

    def line(self, text: str) -> None:
        """Print a permanent line, above the bar."""
        if self._bar is not None:
            self._bar.console.print(printable(text), highlight=False, markup=False)
        else:
            self._console.info(text)
