"""Writes files whole or not at all, reads regular files only, and hashes content."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Final

from edgekit.core.errors import EdgekitError
from edgekit.core.limits import check_size

_UNFINISHED: Final = ".tmp"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    A crash at any moment leaves the old file (or none), never half of the new one. Temporary files
    of writers that were killed are removed by the next one.
    """
    new: Path | None = None
    try:
        _check_replaceable(path)
        make_folder(path.parent)
        _clean(path)
        new, handle = _create_beside(path)
        try:
            with os.fdopen(handle, "wb", closefd=False) as stream:
                write(stream)
                stream.flush()
                os.fsync(handle)
            new.replace(path)
        finally:
            os.close(handle)  # and with it the lock, when there is nothing left to remove
        sync_folder(path.parent)
    except OSError as error:
        raise EdgekitError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a device, a pipe, a folder or a link."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.EEXIST, "it is a link, and no file may take its place")
    if not stat.S_ISREG(mode):
        why = errno.EISDIR if stat.S_ISDIR(mode) else errno.EEXIST
        what = (
            os.strerror(why)
            if stat.S_ISDIR(mode)
            else "it is no regular file, and none may take its place"
        )
        raise OSError(why, what)


def _create_beside(path: Path) -> tuple[Path, int]:
    """A new file that is locked, so that nobody takes it for one of a dead writer."""
    while True:
        new = path.parent / f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}"
        # Not tempfile's: its files are the user's alone, and asking for the umask, to undo that,
        # means to be without one for a moment, in all threads.
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody who cleans up was faster, and is about to remove it
            mine = False
        except OSError:  # a file system without locks, where nobody removes anything
            mine = True
        else:
            mine = os.fstat(handle).st_nlink > 0
        if mine:
            return new, handle
        os.close(handle)


_leftovers: dict[Path, list[Path]] = {}


def _clean(path: Path) -> None:
    """Remove what killed writers of ``path`` left behind; a locked file has a living writer.

    A process lists a folder once: a cache has many files, and each is written.
    """
    folder = path.parent
    if folder not in _leftovers:
        _leftovers[folder] = list(folder.glob(f".*.????????{_UNFINISHED}"))
    for leftover in _leftovers[folder]:
        if not fnmatchcase(leftover.name, f".{glob.escape(path.name)}.????????{_UNFINISHED}"):
            continue
        try:
            handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone in the meantime, or unreadable: not ours
            continue
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode) and try_lock(handle):
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
        finally:
            os.close(handle)


def try_lock(handle: int) -> bool:
    """Whether the lock was free; it is held until ``handle`` is closed or the process ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody holds it, or the file system has no locks: then nothing is removed
        return False
    return True


def make_folder(path: Path) -> None:
    """``mkdir -p``; what is made is on disk, or losing power would undo all that is put in it."""
    missing = []
    folder = path
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        with contextlib.suppress(OSError):  # a folder that may not be read
            sync_folder(folder.parent)


def real_path(path: Path) -> Path:
    """Like `Path.resolve`, which raises RuntimeError where links lead in a circle."""
    return Path(os.path.realpath(path))


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to disk: without that, a power loss undoes a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems have nothing to sync there
            os.fsync(handle)
    finally:
        os.close(handle)


def open_regular(path: Path) -> BinaryIO:
    """Open a user's file for reading; OSError if it is a pipe or a device, which may never end.

    A pipe is opened without waiting for its writer.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, "No file has such a name", str(path)) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        what = os.strerror(code) if stat.S_ISDIR(mode) else "Not a regular file"
        raise OSError(code, what, str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path) -> bytes:
    """The content of a user's file, if it is a regular file and not too large."""
    with open_regular(path) as stream:
        check_size(os.fstat(stream.fileno()).st_size, str(path))
        return stream.read()


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically replace ``path`` by ``data``."""
    write_atomically(path, lambda stream: stream.write(data))


def write_text(path: Path, text: str) -> None:
    """Atomically replace ``path`` by ``text`` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; OSError for a pipe or a device."""
    total = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()
