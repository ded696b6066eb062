"""Keeps files of an object store on this machine's disk, in a bounded folder of the cache.

A file is kept under the hash of its URL and of the version that the store tells (its size and
ETag), so a changed one is fetched again. It begins with the SHA-256 of the content, which is
checked whenever it is read: what a crash or a disk damaged is fetched again, too. Nothing on disk
is called as the store calls it, so its names cannot reach another folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgekit.core.cache_space import use_cache
from edgekit.core.limits import mebibytes
from edgekit.core.step_cache import cache_root

LIMIT: Final = "EDGEKIT_REMOTE_CACHE_MB"  # the environment variable
_DEFAULT_MIB: Final = 8192
DIGEST_BYTES: Final = 32
_LEFT_AFTER_EVICTION: Final = 0.9  # of the bound
_SHARE: Final = 64  # of the bound: so much is written before all of it is counted again


def limit_bytes() -> int:
    """The bound set by the user, or 8 GiB."""
    return mebibytes(LIMIT, _DEFAULT_MIB)


@dataclass
class RemoteCache:
    """Files by their URL and version. Any number of processes share one folder."""

    folder: Path
    most: int  # bytes
    _uncounted: int = field(default=0, init=False)

    @staticmethod
    def open() -> RemoteCache:
        """The user's; nobody empties it until this process ends."""
        root = cache_root()
        use_cache(root)
        return RemoteCache(root / "remote", limit_bytes())

    def digest(self, key: str) -> str | None:
        """SHA-256 of the content kept under ``key``."""
        with suppress(OSError), self._path(key).open("rb") as file:
            found = file.read(DIGEST_BYTES)
            return found.hex() if len(found) == DIGEST_BYTES else None
        return None

    def read(self, key: str) -> bytes | None:
        """The content kept under ``key``; None if there is none, or it is damaged."""
        path = self._path(key)
        try:
            whole = path.read_bytes()
            content = whole[DIGEST_BYTES:]
            if hashlib.sha256(content).digest() != whole[:DIGEST_BYTES]:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)  # eviction goes by this time
        except OSError:
            return None
        return content

    def file(self, key: str) -> Path | None:
        """The file under ``key``, if it is there and whole: a digest, then the content."""
        path = self._path(key)
        total = hashlib.sha256()
        try:
            with path.open("rb") as file:
                told = file.read(DIGEST_BYTES)
                while block := file.read(1 << 20):
                    total.update(block)
            os.utime(path)
        except OSError:
            return None
        return path if total.digest() == told else None

    def write(self, key: str, content: bytes) -> None:
        """Keep ``content``, if there is room. A disk that is full or read-only keeps nothing."""
        with suppress(OSError):
            self.write_blocks(key, iter((content,)))

    def write_blocks(self, key: str, blocks: Iterator[bytes]) -> None:
        """The same in pieces; OSError if it cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        total = hashlib.sha256()
        try:
            with partial.open("wb") as file:  # not synced: the digest tells what a crash tears
                file.write(bytes(DIGEST_BYTES))
                for block in blocks:
                    total.update(block)
                    file.write(block)
                size = file.tell()
                file.seek(0)
                file.write(total.digest())
            if self._room_for(size):
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()

    def _room_for(self, size: int) -> bool:
        if size > self.most:
            return False
        if not self._uncounted or self._uncounted + size > self.most // _SHARE:
            self._evict(size)
            self._uncounted = 0
        self._uncounted += size
        return True

    def _evict(self, room: int) -> None:
        """Drop what was not read for longest, until there is room."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        if total + room <= self.most:
            return
        for _, size, path in sorted(files):
            if total + room <= self.most * _LEFT_AFTER_EVICTION:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
