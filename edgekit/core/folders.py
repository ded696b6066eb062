"""Replaces a folder whole or not at all, even if the process is killed midway.

The new folder is written beside the old one under a hidden name, flushed to disk, and then
exchanged with the old one in a single step of the kernel (Linux's RENAME_EXCHANGE). Where the
file system cannot do that, the old folder is moved aside first; `existing_folder` finds it there
if the process dies before the new one is in place.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import make_folder, try_lock

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_PARTIAL: Final = ".partial"
_LOCK_SECONDS: Final = 120.0


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write files into an empty folder, then put that folder at ``path``.

    The former content is removed after the exchange. Leftovers of killed writers are removed
    first; folders of running writers are locked, and left alone.
    """
    path = path.resolve()  # a link is kept, and its target replaced
    try:
        make_folder(path.parent)
        with _locked(path.parent):
            _clean(path)
            # Not from tempfile, for the reason in `write_atomically`.
            new = path.parent / _partial_name(path)
            new.mkdir()
            lock = os.open(new, os.O_RDONLY)
            try_lock(lock)
        try:
            fill(new)
            for file in new.iterdir():
                _sync(file)
            _sync(new)
            _put(new, path)
            _sync(path.parent)
        finally:
            os.close(lock)
            shutil.rmtree(new, ignore_errors=True)  # by now this is the old folder, if any
    except OSError as error:
        raise EdgekitError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Try what `replace_folder` will do first: for callers whose work before that takes hours."""
    try:
        path = path.resolve()
        parent = path.parent
        while not parent.exists():
            parent = parent.parent
        new = parent / _partial_name(path)
        new.mkdir()
        new.rmdir()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write {path}: {reason}: name another folder") from error


def _partial_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}"


def existing_folder(path: Path) -> Path:
    """``path``, or the place of its last content if a writer died between moving old and new."""
    aside = _aside(path)
    return aside if aside.is_dir() and not path.exists() else path


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of ``path`` left, for a caller that has nothing to write.

    The removal of an old folder may also be undone by a power cut right after it.
    """
    path = path.resolve()
    with contextlib.suppress(OSError), _locked(path.parent):
        _clean(path)


def remove_folder(path: Path, still: Callable[[Path], bool]) -> None:
    """Remove the folder if ``still`` says so while nobody can replace it."""
    path = path.resolve()
    with contextlib.suppress(OSError), _locked(path.parent):
        if path.is_dir() and still(path):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock the folder ``path``, if it exists, against others that replace or change it.

    Readers share the lock, so none sees one file of the old content and one of the new.
    """
    while path.is_dir():
        with _locked(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) as inode:
            if path.stat().st_ino == inode:
                yield
                return
        # Somebody exchanged the folder while we waited for its lock.
    yield


def _put(new: Path, path: Path) -> None:
    if path.exists() and exchange(new, path):
        return
    aside = _aside(path)
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    new.rename(path)
    _sync(path.parent)  # a power cut must not undo the rename but keep the removal
    shutil.rmtree(aside, ignore_errors=True)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # not Linux, or a C library from before 2018
        return False
    status = rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(status == 0)


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}.previous"


def _clean(path: Path) -> None:
    """Remove what killed writers of ``path`` left behind; a locked folder has a living writer."""
    if path.exists():
        shutil.rmtree(_aside(path), ignore_errors=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        try:
            handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone in the meantime, or not ours, such as a pipe
            continue
        try:
            if try_lock(handle):
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _locked(folder: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Wait for the folder's lock and hold it; yields its inode."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _wait_for_lock(handle, folder, kind)
        yield os.fstat(handle).st_ino
    finally:
        os.close(handle)


def _wait_for_lock(handle: int, folder: Path, kind: int) -> None:
    """Wait with a limit: whoever may read a folder may lock it, and never let go."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise EdgekitError(
                    f"another process has locked {folder} for {_LOCK_SECONDS:.0f} s: see 'lsof "
                    f"{folder}', end that process, or use another folder"
                ) from error
            time.sleep(0.02)
        except OSError:  # a file system without locks: carry on without
            return
        else:
            return


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
