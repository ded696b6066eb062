"""Each of the processes that share the tests has cores of its own.

Runtimes wait for their next work in loops that take a core. Two processes with a thread on each of
two cores then take most of them from each other: together they were half as long again at work.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = os.sched_getaffinity(0)


def divide() -> None:
    """Keep this process, and all that it starts, to its share; one that is alone has them all."""
    name, count = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if name is None or count is None:
        return
    share = sorted(EVERY)[int(name.removeprefix("gw")) :: int(count)]
    if share:
        os.sched_setaffinity(0, share)


@contextmanager
def every() -> Iterator[None]:
    """All of them for a while, for threads that are to meet each other."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, EVERY)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
