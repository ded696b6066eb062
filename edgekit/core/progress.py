"""Progress of a long loop: a bar with ETA on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console as Terminal
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgekit.core.console import Console, printable, terminal_width

T = TypeVar("T")

_EVERY = 10.0  # seconds
_ETA, _ELAPSED, _LEAST_BAR = 12, 8, 6  # columns, with a space before each


def track(
    console: Console, items: Iterable[T], total: int, title: str, note: Callable[[], str] = str
) -> Generator[T, None, None]:
    """Yield ``items`` with a progress bar on a terminal, plain lines otherwise, one at the end.

    ``note`` returns anything else to show, such as a running estimate. Whoever stops early closes
    it: what ends when it is dropped ends where Python ignores Ctrl-C.
    """
    start, taken = time.monotonic(), 0
    with ProgressBar(console, title, total) as bar:
        try:
            for item in items:
                taken += 1
                yield item
                bar.advance(figures=note)
        finally:  # some consumers stop early
            if not bar.shown:
                console.info(f"{title}: {taken}/{total} in {time.monotonic() - start:.1f} s")


class _Bar(Progress):
    """A bar with its figures below: beside it they would be cut on a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, and the lines of its figures."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if figures := task.fields["figures"]:
                yield Text(f"  {figures}")


def _columns(title: str, total: int, width: int) -> list[ProgressColumn]:
    """As many parts of a bar as fit, the most important first to stay."""
    spare = width - len(title) - 2 * len(f" {total}")
    shown: list[ProgressColumn] = [TextColumn("{task.description}"), MofNCompleteColumn()]
    if spare >= _ETA:
        shown += [TextColumn("ETA"), TimeRemainingColumn()]
        spare -= _ETA
    if spare >= _ELAPSED:
        shown.insert(2, TimeElapsedColumn())
        spare -= _ELAPSED
    if spare > _LEAST_BAR:
        shown.insert(1, BarColumn(bar_width=min(20, spare - 1)))
    return shown


class ProgressBar:
    """Like `track`, for a loop that counts by itself or resumes where another process stopped."""

    def __init__(self, console: Console, title: str, total: int, done: int = 0) -> None:
        self._console, self._title, self._total, self._done = console, title, total, done
        self._skipped = done  # not done by this process, so not counted in its speed
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if console.verbosity >= 0 and sys.stderr.isatty():
            terminal = Terminal(stderr=True, width=terminal_width(sys.stderr))
            columns = _columns(title, total, terminal.width)
            self._bar = _Bar(*columns, console=terminal)
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

    @property
    def shown(self) -> bool:
        """Whether there is a bar, rather than a line now and then."""
        return self._bar is not None

    def advance(self, count: int = 1, figures: str | Callable[[], str] = "") -> None:
        """Record that ``count`` more are done; callable ``figures`` are called when shown."""
        self._done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, figures=_text(figures))
            return
        now = time.monotonic()
        if now - self._last >= _EVERY and self._done < self._total:
            speed = (self._done - self._skipped) / (now - self._start)
            remaining = (self._total - self._done) / speed
            text = f"{self._title}: {self._done}/{self._total}, about {remaining:.0f} s to go"
            self._console.info(f"{text}  {_text(figures)}".rstrip())
            self._last = now

    def line(self, text: str) -> None:
        """Print a permanent line, above the bar."""
        if self._bar is not None:
            self._bar.console.print(printable(text), highlight=False, markup=False)
        else:
            self._console.info(text)


def _text(figures: str | Callable[[], str]) -> str:
    return figures if isinstance(figures, str) else figures()
