"""A bounded folder of corrupted images, shared by any number of processes.

Nothing uses it unless a `CorruptionCache` is made: most corruptions cost less than a
millisecond at 224 px, so only repeated runs over the same images gain, and data larger than
the bound gain nothing at all (docs/corruptions.md has the figures).

One file holds one image: a header with the key, the shape and a digest of the pixels, then the
pixels. Files are written beside and renamed, so a reader sees all of one or none; a file whose
digest does not fit is deleted and computed again. The sum of all sizes is kept in one small
file under a lock, which only writers take.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.data import corruptions
from edgekit.data.corruptions.version import code_version, digest_of_parts

_MAGIC = b"edgekit-corrupt1"
_HEADER = struct.Struct("<16s32s32sII")  # magic, key, digest of the pixels, height, width
_KEPT_AFTER_EVICTION = 0.9  # of the bound: evicting costs a scan, so it is done in batches
_ABANDONED_S = 3600  # seconds after which a temporary file belongs to no living writer


class CorruptionCache:
    """Corrupted images in ``folder``, at most ``max_bytes`` of them, the stalest dropped first.

    `corrupt` has the signature and the result of `edgekit.data.corruptions.corrupt`.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise UsageError(f"a corruption cache of {max_bytes} bytes holds nothing: give more")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the cache folder {folder}: {error.strerror}") from error
        self.folder = folder
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._writable = True

    def corrupt(
        self,
        image: NDArray[np.uint8],
        corruption: str,
        severity: int,
        *,
        image_id: str,
        seed: int = 0,
        frost_textures: Path | None = None,
    ) -> NDArray[np.uint8]:
        """The corrupted copy of ``image``, read if it is there and sound, else computed."""
        corruptions.check_image(image)
        severity = corruptions.check_severity(severity)
        request = repr((corruption, severity, image_id, int(seed), image.shape)).encode()
        textures = textures_digest(frost_textures) if corruption == "frost" else b""
        key = digest_of_parts(code_version(), textures, request, image.tobytes())
        name = key.hex()
        path = self.folder / name[:2] / name[2:]
        found = _read(path, key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        result = corruptions.corrupt(
            image,
            corruption,
            severity,
            image_id=image_id,
            seed=seed,
            frost_textures=frost_textures,
        )
        if self._writable:
            try:
                self._write(path, key, result)
            except OSError as error:  # a full disk must not end hours of training
                self._writable = False
                warnings.warn(
                    f"corruption cache {self.folder} cannot be written ({error}): "
                    "going on without it",
                    stacklevel=2,
                )
        return result

    def bytes_used(self) -> int:
        """Bytes of all entries on disk, counted now."""
        return sum(entry.size for entry in self._entries())

    def _write(self, path: Path, key: bytes, pixels: NDArray[np.uint8]) -> None:
        payload = pixels.tobytes()
        height, width = pixels.shape[:2]
        content = _HEADER.pack(_MAGIC, key, digest_of_parts(payload), height, width) + payload
        if len(content) > self.max_bytes:
            return
        path.parent.mkdir(exist_ok=True)
        # Not synced to the disk: what a power cut tears, the digest finds.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        fresh = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            with self._locked():
                if path.exists():  # another process was faster
                    return
                total = self._total()
                if total + len(content) > self.max_bytes:
                    total = self._evict(len(content))
                # Counted before it is there: a crash in between only makes the sum too large.
                (self.folder / "total").write_text(str(total + len(content)))
                fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file closes
            yield

    def _total(self) -> int:
        """Bytes of all entries as the writers sum them up; counted where that is lost."""
        try:
            return int((self.folder / "total").read_text())
        except (FileNotFoundError, ValueError):
            return self.bytes_used()

    def _evict(self, needed: int) -> int:
        """Deletes the longest unused entries to make room; returns the bytes that remain."""
        entries = sorted(self._entries())
        total = sum(entry.size for entry in entries)
        allowed = self.max_bytes * _KEPT_AFTER_EVICTION - needed
        for entry in entries:
            if total <= max(allowed, 0):
                break
            with suppress(FileNotFoundError):
                entry.path.unlink()
            total -= entry.size
        return total

    def _entries(self) -> Iterator[_Entry]:
        for path in self.folder.glob("??/*"):
            with suppress(FileNotFoundError):  # evicted or replaced by another process meanwhile
                status = path.stat()
                if not path.name.startswith(".new-"):
                    yield _Entry(status.st_mtime_ns, status.st_size, path)
                elif status.st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()


class _Entry(NamedTuple):
    used_ns: int
    size: int
    path: Path


def _read(path: Path, key: bytes) -> NDArray[np.uint8] | None:
    """The pixels of an entry, or None if there is none; one that is damaged is deleted."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    pixels = _parse(content, key)
    with suppress(OSError):  # gone meanwhile, or a cache that may only be read
        if pixels is None:
            path.unlink()
        else:
            os.utime(path)  # the age that eviction goes by
    return pixels


def _parse(content: bytes, key: bytes) -> NDArray[np.uint8] | None:
    if len(content) < _HEADER.size:
        return None
    magic, stored_key, digest, height, width = _HEADER.unpack_from(content)
    payload = content[_HEADER.size :]
    if magic != _MAGIC or stored_key != key or len(payload) != height * width * 3:
        return None
    if digest_of_parts(payload) != digest:
        return None
    return np.frombuffer(payload, dtype=np.uint8).reshape(height, width, 3).copy()


@lru_cache(maxsize=8)
def textures_digest(folder: Path | None) -> bytes:
    """Digest of the frost photographs in the user's folder, read once in a process."""
    if folder is None:
        return b""
    return digest_of_parts(*(path.read_bytes() for path in sorted(folder.glob("frost*.*"))))
