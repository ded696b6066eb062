"""The process's background threads: few are ever started, and no wait for one lasts forever.

Starting a thread waits, without a limit, for a wakeup that glibc before 2.41 may lose, so threads
should be started as rarely as possible: they are reused for the next task, and callers keep the
number of their concurrent tasks small. They are daemons: one that is stuck inside a runtime does
not keep the process from ending.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final, ParamSpec, TypeVar

from edgekit.core.errors import EdgekitError

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

WAIT_SECONDS: Final = 600.0
"""How long to wait for one inference or one file; anything slower is stuck."""
_END_SECONDS: Final = 5.0


class _Threads:
    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0  # idle threads, minus the tasks waiting for one
        self.busy = 0  # unfinished tasks

    def add(self, task: Callable[[], None]) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                self._start()
            self.busy += 1
        self._tasks.put(task)

    def done(self) -> None:
        """The calling thread is about to take another task."""
        with self._lock:
            self._free += 1
            self.busy -= 1

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="edgekit", daemon=True).start()
        except RuntimeError as error:
            raise EdgekitError(
                f"cannot start a thread ({error}): raise the limit of processes (ulimit -u)"
            ) from error

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            task()
            del task  # frees what it refers to, such as images, before the next task comes


_threads = _Threads()


def _forget() -> None:
    """In a forked child, where only the forking thread survives."""
    global _threads
    _threads = _Threads()


def _finish() -> None:
    """At process exit: a runtime must not lose its memory while it computes."""
    deadline = time.monotonic() + _END_SECONDS
    while _threads.busy and time.monotonic() < deadline:
        time.sleep(0.005)


os.register_at_fork(after_in_child=_forget)
atexit.register(_finish)


def submit(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
    """Run ``call`` in one of the process's threads."""
    future: Future[T] = Future()
    threads = _threads

    def task() -> None:
        if not future.set_running_or_notify_cancel():
            threads.done()
            return
        try:
            result = call(*arguments, **named)
        except BaseException as error:  # noqa: BLE001 # raised again by the caller of result()
            threads.done()
            future.set_exception(error)
        else:
            threads.done()  # first: whoever gets the result may submit the next task at once
            future.set_result(result)

    threads.add(task)
    return future


def result_of(future: Future[T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """The result of a `submit`; ``what`` names it in the error if it does not arrive in time."""
    try:
        return future.result(seconds)
    except FutureTimeout as error:
        if future.done():  # the call's own TimeoutError: on Python 3.11 it is the same class
            raise
        raise late(what, seconds) from error
    except CancelledError as error:
        raise EdgekitError(f"{what}: stopped before it began") from error


def in_order(call: Callable[[A], T], items: Iterable[A], at_once: int, what: str) -> Iterator[T]:
    """``call`` every item, ``at_once`` at a time; leaving early cancels what has not begun."""
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            if len(waiting) == at_once:
                yield result_of(waiting.popleft(), what)
            waiting.append(submit(call, item))
        while waiting:
            yield result_of(waiting.popleft(), what)
    finally:
        for future in waiting:
            future.cancel()


def late(what: str, seconds: float = WAIT_SECONDS) -> EdgekitError:
    """The error for ``what`` that did not arrive in time."""
    return EdgekitError(f"{what}: nothing arrived in {seconds:.0f} s: it may be stuck, start again")
