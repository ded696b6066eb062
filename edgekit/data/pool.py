"""Worker processes that compute ``function(dataset, task)`` and hand results back in order.

Each worker has one pipe. It sends results from a separate thread, so a busy caller does not stall
it. The pipe is also the lifeline: a worker whose parent is gone, even by kill -9, reads the end of
the pipe and exits; the parent notices a dead worker the same way.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.threads import WAIT_SECONDS
from edgekit.data.base import Dataset
from edgekit.data.decode import BadImage

T = TypeVar("T")
R = TypeVar("R")

_END_SECONDS = 5.0
_AHEAD = 2  # groups of tasks per worker that may be computed before the caller asks for them


class WorkerCrashed(EdgekitError):
    """A worker is gone: killed, or it could not even start."""


class WorkerBug(RuntimeError):
    """The function raised an unexpected error; the message is its traceback."""


@dataclass(frozen=True)
class _Results(Generic[R]):
    """The results of a group of tasks; a failure ends the group, after the values before it."""

    values: list[R | BadImage]
    failure: EdgekitError | WorkerBug | None


class Pool(Generic[T, R]):
    """Workers for one dataset and one function; use it in a ``with`` statement.

    ``workers = 0`` starts no processes: everything happens in the caller's.
    """

    def __init__(
        self, dataset: Dataset, function: Callable[[Dataset, T], R], workers: int = 0
    ) -> None:
        if workers < 0:
            raise UsageError(f"the number of workers must not be negative, not {workers}")
        self._dataset, self._function = dataset, function
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._busy = self._closed = self._answered = False
        if workers:
            self._start(workers)

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def map(
        self,
        tasks: Iterable[T],
        *,
        chunk: int = 8,
        on_bad: Callable[[BadImage], object] | None = None,
    ) -> Generator[R, None, None]:
        """The results of all tasks, in order; see `edgekit.data.loading.load_each`.

        One iteration at a time. Dropping an iterator half-way stops the workers.
        """
        if self._closed or self._busy:
            raise RuntimeError("this Pool is " + ("closed" if self._closed else "in use"))
        groups = _grouped(tasks, max(1, chunk))
        source = self._across(groups) if self._pipes else self._inline(groups)
        for result in source:
            if not isinstance(result, BadImage):
                yield result
            elif on_bad is None:
                raise result
            else:
                on_bad(result)

    def close(self) -> None:
        """End the workers now, whatever they are doing."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_END_SECONDS)
            if process.exitcode is None:  # suspended, or stuck in a file system that hangs
                process.kill()
                process.join(_END_SECONDS)
        self._pipes, self._processes = [], []
        self._closed = True

    def _inline(self, groups: Iterator[list[T]]) -> Iterator[R | BadImage]:
        for group in groups:
            for task in group:
                try:
                    result: R | BadImage = self._function(self._dataset, task)
                except BadImage as error:
                    result = error
                yield result

    def _start(self, workers: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        started = False
        try:
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)
            job = pickle.dumps((self._dataset, self._function), protocol=5)
            for pipe in self._pipes:  # by now all are starting up in parallel
                try:
                    pipe.send_bytes(job)
                except OSError as error:
                    raise self._crash(pipe) from error
            started = True
        finally:
            if not started:
                self.close()

    def _across(self, groups: Iterator[list[T]]) -> Iterator[R | BadImage]:
        self._busy = True
        finished = False
        try:
            load = dict.fromkeys(self._pipes, 0)  # groups a worker has, done or not
            waiting: dict[int, _Results[R]] = {}
            sent = 0  # groups
            returned = 0
            exhausted = False
            while True:
                # Bounded by what the caller got, not by what the workers returned: otherwise
                # results would pile up while one slow group holds them back.
                while not exhausted and sent - returned < _AHEAD * len(self._pipes):
                    group = next(groups, None)
                    if group is None:
                        exhausted = True
                        break
                    pipe = min(self._pipes, key=lambda candidate: load[candidate])
                    self._send(pipe, (sent, group))
                    load[pipe] += 1
                    sent += 1
                if returned == sent:
                    break
                while returned not in waiting:
                    ready_pipes = wait(self._pipes, WAIT_SECONDS)
                    if not ready_pipes:
                        raise WorkerCrashed(
                            f"the loading workers sent nothing for {WAIT_SECONDS:.0f} s: check "
                            "that they are running and that the images' file system responds"
                        )
                    for ready_pipe in ready_pipes:
                        assert isinstance(ready_pipe, Connection)
                        number, results = self._receive(ready_pipe)
                        load[ready_pipe] -= 1
                        waiting[number] = results
                results = waiting.pop(returned)
                yield from results.values
                if results.failure is not None:
                    raise results.failure
                returned += 1
            finished = True
        finally:
            self._busy = False
            if not finished:  # results of this iteration are still on their way
                self.close()

    def _send(self, pipe: Connection, message: tuple[int, list[T]]) -> None:
        try:
            pipe.send(message)
        except OSError as error:
            raise self._crash(pipe) from error

    def _receive(self, pipe: Connection) -> tuple[int, _Results[R]]:
        try:
            received: tuple[int, _Results[R]] = pickle.loads(pipe.recv_bytes())
        except (OSError, EOFError) as error:
            raise self._crash(pipe) from error
        self._answered = True
        return received

    def _crash(self, pipe: Connection) -> WorkerCrashed:
        process = self._processes[self._pipes.index(pipe)]
        process.join(5)
        code = process.exitcode
        if code is not None and code < 0:
            reason = f"was killed by {signal.Signals(-code).name}"
            hint = ": out of memory? use fewer workers" if -code == signal.SIGKILL else ""
            return WorkerCrashed(f"a loading worker {reason}{hint}")
        if self._answered:  # so it had started well
            return WorkerCrashed(
                f"a loading worker ended with exit code {code}: see its message above, if any"
            )
        return WorkerCrashed(
            f"a loading worker ended with exit code {code}, see its message above: a script that "
            f"loads with workers needs if __name__ == '__main__':"
        )


def _grouped(tasks: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(tasks)
    while group := list(islice(iterator, size)):
        yield group


def _serve(pipe: Connection) -> None:
    """A worker's main loop: receive groups of tasks, compute, let a thread send the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # The workers provide the parallelism: OpenCV's and BLAS's threads would compete with them.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[variable] = "1"
    failure: WorkerBug | None = None
    dataset: Any = None
    function: Any = None
    try:
        dataset, function = _unpack(pipe.recv_bytes())
    except WorkerBug as error:
        failure = error
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)
    outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    sender = threading.Thread(target=_send_all, args=(pipe, outbox), daemon=True)
    sender.start()
    try:
        while True:
            try:
                number, tasks = pipe.recv()
            except (EOFError, OSError):  # the parent is done, or gone
                return
            results: _Results[Any] = _Results([], failure)
            if failure is None:
                results = _compute(dataset, function, tasks)
            outbox.put(pickle.dumps((number, results), protocol=5))
    finally:
        outbox.put(None)
        sender.join()


def _unpack(job: bytes) -> Any:
    """Dataset and function; anything that importing their modules raises becomes a `WorkerBug`."""
    arrived = False
    try:
        dataset_and_function = pickle.loads(job)
        arrived = True
    finally:
        if not arrived:
            raise WorkerBug(f"a loading worker cannot start:\n{traceback.format_exc()}")
    return dataset_and_function


def _compute(dataset: Dataset, function: Callable[[Dataset, T], R], tasks: list[T]) -> _Results[R]:
    values: list[R | BadImage] = []
    for task in tasks:
        try:
            values.append(_call(function, dataset, task))
        except BadImage as error:
            values.append(error)
        except (EdgekitError, WorkerBug) as error:
            return _Results(values, error)
    return _Results(values, None)


def _call(function: Callable[[Dataset, T], R], dataset: Dataset, task: T) -> R:
    """Call the function; anything it raises but an `EdgekitError` becomes a `WorkerBug`."""
    explained = False
    try:
        result = function(dataset, task)
        explained = True
    except EdgekitError:
        explained = True
        raise
    finally:
        if not explained:  # such an error may not survive pickling, and its traceback never does
            raise WorkerBug(f"in a loading worker:\n{traceback.format_exc()}")
    return result


def _send_all(pipe: Connection, outbox: queue.SimpleQueue[bytes | None]) -> None:
    while (message := outbox.get()) is not None:
        try:
            pipe.send_bytes(message)
        except OSError:
            os._exit(0)  # the parent is gone
