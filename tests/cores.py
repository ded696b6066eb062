"""Each of the processes that share the tests has cores of its own.

Runtimes wait for their next work in loops that take a core. Where more threads than cores wait like
that they take the cores from each other: beside other work, a file of tests took 267 seconds of
processor time with two threads and 161 with one. What holds on one core is tested in passing.

Runtimes count the cores once. Tests of threads that are to meet each other, marked ``every_core``,
therefore run in a process that has always had all of them.
"""

import os

EVERY = os.sched_getaffinity(0)


def divide() -> None:
    """Keep this process, and all that it starts, to its share; one that is alone has them all."""
    name, count = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if name is None or count is None:
        return
    share = sorted(EVERY)[int(name.removeprefix("gw")) :: int(count)]
    if share:
        os.sched_setaffinity(0, share)


def shared() -> bool:
    """Whether this process has a part of them."""
    return os.sched_getaffinity(0) != EVERY
