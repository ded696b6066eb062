"""Writes files whole or not at all, reads regular files only, and hashes content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgekit.core.errors import EdgekitError
from edgekit.core.limits import check_size


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    A crash at any moment leaves the old file (or none), never half of the new one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        # Not from tempfile, whose files only the user can read: to undo that one must ask for the
        # umask, which can only be done by changing it for a moment, in all threads.
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EdgekitError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise EdgekitError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


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
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "Not a regular file")
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
    """SHA-256 of a file's content, in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()
