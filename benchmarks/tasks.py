"""Runs a benchmark's tasks: one after the other here, or at the same time on a Ray cluster.

Each leaves a file, and what has its file is not done again. So the results do not depend on where
they are made, and an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, Interrupted, UsageError, one_line
from edgekit.core.host import limit_threads
from edgekit.parity.ray_cluster import ray_on
from edgekit.parity.ray_executor import reason_of


@dataclass(frozen=True)
class Task:
    """A part of a benchmark. On Ray its paths must lead to the same files on every machine."""

    name: str
    result: Path
    make: Callable[[], object]
    needs: tuple[str, ...] = ()  # tasks that must have ended well before
    after: tuple[str, ...] = ()  # tasks that must have ended, as they fill a cache


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where tasks run."""
    parser.add_argument("--on", metavar="ray[:ADDRESS]", help="all tasks at a time, on Ray")
    parser.add_argument("--cpus", type=int, default=1, help="of a task on Ray")


def run_all(tasks: Sequence[Task], on: str | None, cpus: int, console: Console) -> list[str]:
    """Run the tasks that have no result yet; the names of those that failed.

    What needs a failed task is left out; all others are run.
    """
    waiting = [task for task in tasks if not task.result.exists()]
    if not waiting:
        return []
    with _here() if on is None else _on_ray(on, cpus) as (most, submit):
        return _scheduled(waiting, most, submit, console)


_Submit = Callable[[Callable[[], object]], "Future[str]"]  # the future says why it failed, or ""


def _scheduled(waiting: list[Task], most: int, submit: _Submit, console: Console) -> list[str]:
    count, failed = len(waiting), list[str]()
    running: dict[Future[str], Task] = {}
    while waiting or running:
        for task in list(waiting):
            unfinished = {other.name for other in (*waiting, *running.values())}
            if broken := set(task.needs) & set(failed):
                waiting.remove(task)
                failed.append(task.name)
                console.warn(f"{task.name}: left out, as it needs {', '.join(sorted(broken))}")
            elif len(running) < most and not unfinished & {*task.needs, *task.after}:
                waiting.remove(task)
                running[submit(task.make)] = task
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            error = future.exception()
            reason = reason_of(error) if error else future.result()
            if not reason and not task.result.exists():
                reason = f"it left no {task.result}"
            if reason:
                failed.append(task.name)
                console.warn(f"{task.name}: failed: {reason}")
            else:
                done = count - len(waiting) - len(running) - len(failed)
                console.info(f"{task.name}: done ({done} of {count})")
    return failed


@contextmanager
def _here() -> Iterator[tuple[int, _Submit]]:
    def submit(make: Callable[[], object]) -> Future[str]:
        future: Future[str] = Future()
        future.set_result(_why_not(make))
        return future

    yield 1, submit


@contextmanager
def _on_ray(on: str, cpus: int) -> Iterator[tuple[int, _Submit]]:
    with ray_on(on):
        import ray

        most = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        if not 1 <= cpus <= most:  # Ray would wait for such a machine
            raise UsageError(f"--cpus {cpus}: the largest machine of the cluster has {most}")
        # Tried again elsewhere if a machine is lost, but not if the task says why it failed.
        options: dict[str, Any] = {"num_cpus": cpus, "max_retries": 1}
        task = ray.remote(**options, scheduling_strategy="SPREAD")(_there)
        place = partial(task.remote, str(Path.cwd()), cpus)
        yield sys.maxsize, lambda make: place(make).future()


def _there(folder: str, cpus: int, make: Callable[[], object]) -> str:
    """In a worker of Ray, which has so many CPUs of its machine for itself."""
    os.chdir(folder)
    limit_threads(cpus)
    return _why_not(make)


def _why_not(make: Callable[[], object]) -> str:
    """Make it; why it failed, or nothing."""
    try:
        make()
    except Interrupted:
        raise
    except EdgekitError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks go on
        return f"{type(error).__name__}: {one_line(error)}"
    return ""


def run_script(main: Callable[[], list[str]]) -> NoReturn:
    """Run a benchmark; ``main`` returns the names of what failed. Errors are one line."""
    try:
        failed = main()
    except EdgekitError as error:
        Console().error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console().error("interrupted: run the same command to resume")
        sys.exit(Interrupted.exit_code)
    if failed:
        Console().error(f"{len(failed)} failed: {', '.join(failed)}")
        sys.exit(EdgekitError.exit_code)
    sys.exit(0)
