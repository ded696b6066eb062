"""What is in the cache, and how it is emptied without hurting a process that uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.errors import EdgekitError

_LOCK: Final = "in-use"  # in the cache: shared by whoever reads, taken alone by whoever cleans
_held: dict[tuple[int, Path], int] = {}  # by process: a child's lock is not its own


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache, which is removed as a whole."""

    path: Path
    bytes: int
    used: float
    """When it was last written or taken, in seconds since 1970."""


@dataclass(frozen=True)
class CachePart:
    """What one kind of work keeps."""

    name: str
    entries: tuple[CacheEntry, ...]

    @property
    def bytes(self) -> int:
        """The size of all of it."""
        return sum(entry.bytes for entry in self.entries)


def use_cache(root: Path) -> None:
    """Keep `clean` from removing anything until this process ends.

    A cache that cannot be written is not cleaned by this user either, and needs no lock.
    """
    key = (os.getpid(), root)
    if key in _held:
        return
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(handle, fcntl.LOCK_SH)
        _held[key] = handle


def cache_parts(root: Path) -> list[CachePart]:
    """Everything in the cache, the largest part first."""
    parts = [
        CachePart(folder.name, tuple(_entry(path) for path in sorted(folder.iterdir())))
        for folder in (sorted(root.iterdir()) if root.is_dir() else [])
        if folder.is_dir() and not folder.is_symlink()
    ]
    return sorted((part for part in parts if part.entries), key=lambda part: -part.bytes)


def clean(root: Path, older_than: float = 0) -> list[CachePart]:
    """Remove what was not used for ``older_than`` seconds; returns it. Refused during use."""
    if not root.is_dir():
        return []
    latest = time.time() - older_than
    with _alone(root):
        removed = []
        for part in cache_parts(root):
            old = tuple(entry for entry in part.entries if entry.used <= latest)
            for entry in old:
                _remove(entry.path)
            removed.append(CachePart(part.name, old))
    return [part for part in removed if part.entries]


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    try:
        handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EdgekitError(f"cannot clean {root}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise EdgekitError(
            f"the cache {root} is in use by another edgekit: clean it when that has ended"
        ) from error
    finally:
        os.close(handle)


def _entry(path: Path) -> CacheEntry:
    files = [path] if path.is_symlink() or not path.is_dir() else [path, *path.rglob("*")]
    stats = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another process may be at work
            stats.append(file.lstat())
    size = sum(found.st_blocks for found in stats) * 512
    return CacheEntry(path, size, max((found.st_mtime for found in stats), default=0.0))


def _remove(path: Path) -> None:
    """First out of sight: a removal that is cut short must not leave half an entry."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    hidden = path.with_name(f".removed-{os.getpid()}-{path.name}")
    path.rename(hidden)
    shutil.rmtree(hidden)
