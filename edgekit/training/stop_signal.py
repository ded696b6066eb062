"""Ctrl-C that waits for the end of a step, so that half a step is never saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from edgekit.core.errors import Interrupted
from edgekit.data.pool import WorkerCrashed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Within a ``with`` statement, `requested` becomes true at the first Ctrl-C (or SIGTERM).

    A second one ends the program at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: list[Any] = []

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = [signal.signal(number, self._note) for number in _SIGNALS]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in zip(_SIGNALS, self._before, strict=False):
            signal.signal(number, handler)
        # A signal for the whole group of processes, as a service manager sends, ends workers too.
        if self.requested and isinstance(error, WorkerCrashed):
            raise Interrupted("interrupted: run the same command to resume") from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
