"""What tests make once in a run, however many processes they run in."""

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "EDGEKIT_TESTS_SHARED"
"""Where the run's folder is; set before the processes of pytest-xdist start."""


def begin() -> None:
    """Make the run's folder, if no process has; whoever makes it removes it at its end."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = str(_temporary())


def folder(name: str) -> Path:
    """A folder that lives as long as the run."""
    begin()
    path = Path(os.environ[VARIABLE]) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def own() -> Path:
    """A folder of this process, that lives as long."""
    return _temporary()


def _temporary() -> Path:
    path, maker = Path(tempfile.mkdtemp(prefix="edgekit-tests-")), os.getpid()

    def remove() -> None:
        if os.getpid() == maker:  # no fork of it
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return path


@contextmanager
def alone(name: str) -> Iterator[None]:
    """No other process is in here at the same time."""
    with (folder("locks") / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A file or folder that the first process to want it makes at the path that it is given."""
    path = folder("made") / name
    with alone(name):
        if not path.exists():
            partial = folder("partial") / name
            make(partial)
            partial.rename(path)
    return path
