"""Bundles as one .zip: written reproducibly, unpacked without trusting the content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from edgekit.bundle.manifest import (
    MANIFEST,
    BundleError,
    Manifest,
    is_file_name,
    parse_manifest,
)
from edgekit.core.cache_space import use_cache
from edgekit.core.damage import METHODS
from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_atomically
from edgekit.core.folders import replace_folder
from edgekit.core.limits import mebibytes
from edgekit.core.step_cache import cache_root

T = TypeVar("T")

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the earliest a .zip can say
_BLOCK: Final = 1 << 20
_MOST_MANIFEST_BYTES: Final = 16 << 20
# Unpacked bundles are cached: the latest few.
_MOST_CACHED: Final = 8
CACHE_VARIABLE: Final = "EDGEKIT_BUNDLE_CACHE_MB"
_MOST_CACHED_MIB: Final = 8 << 10
_JUST_USED: Final = 600.0  # seconds
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What Python's zipfile raises for a file that is not a .zip, or an encrypted one.
_DAMAGED: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error, OverflowError),
    *(RuntimeError, IndexError),  # NotImplementedError is a RuntimeError
)


def write_zip(path: Path, contents: Mapping[str, Path | bytes]) -> None:
    """Write a .zip whose bytes depend only on names and contents: dates and order are fixed.

    Stored, not deflated: weights hardly shrink, and zlib's output depends on its version.
    """

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as target:
            for name in sorted(contents):
                content = contents[name]
                info = zipfile.ZipInfo(name, _DATE)
                info.create_system = 3  # Unix, also when written elsewhere
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                if isinstance(content, bytes):
                    target.writestr(info, content)
                    continue
                info.file_size = content.stat().st_size  # decides whether ZIP64 is needed
                with content.open("rb") as source, target.open(info, "w") as entry:
                    shutil.copyfileobj(source, entry, _BLOCK)

    write_atomically(path, write)


def open_zip(path: Path, open_folder: Callable[[Path, bytes], T]) -> T:
    """Unpack ``path`` into the user's cache, or find it there, and open the folder.

    Every byte of the archive is checked against its manifest each time, through one open file, and
    ``open_folder`` gets the folder and the manifest that must be in it: the cache is never trusted,
    and replacing the file meanwhile has no effect.
    """
    room = mebibytes(CACHE_VARIABLE, _MOST_CACHED_MIB, least=0)
    try:
        source = zipfile.ZipFile(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    with source:
        archive = _read_archive(source, path)
        use_cache(cache_root())
        folder = _cache() / hashlib.sha256(archive.data).hexdigest()
        if _holds(folder, archive.data):
            archive.copy(None)
            try:
                return _used(folder, open_folder(folder, archive.data), room)
            except BundleError:  # damaged in the cache, or refused for good: unpacking tells which
                pass
        try:
            replace_folder(folder, archive.copy)
        except BundleError:
            raise
        except EdgekitError as error:
            raise EdgekitError(
                f"cannot unpack {path} ({error}): set EDGEKIT_CACHE to a writable folder"
            ) from error
    try:
        return _used(folder, open_folder(folder, archive.data), room)
    except BundleError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@dataclass(frozen=True)
class _Archive:
    """An open .zip whose table of contents matches its manifest."""

    path: Path
    source: zipfile.ZipFile
    entries: Mapping[str, zipfile.ZipInfo]
    data: bytes
    """Its manifest."""
    manifest: Manifest

    def copy(self, folder: Path | None) -> None:
        """Write all files to ``folder`` and check their hashes; without one, only check."""
        for name, expected in self.manifest.files.items():
            total = hashlib.sha256()
            with contextlib.ExitStack() as opened:
                target = folder and opened.enter_context((folder / name).open("wb"))
                for block in _blocks(self.source, self.entries[name], self.path):
                    total.update(block)
                    if target:
                        target.write(block)
            if total.hexdigest() != expected.sha256:
                raise BundleError(f"{self.path}: {name} does not match its manifest: copy it again")
        if folder:
            (folder / MANIFEST).write_bytes(self.data)


def _read_archive(source: zipfile.ZipFile, path: Path) -> _Archive:
    """Check that a .zip holds exactly the files of its manifest, in their sizes."""
    entries = _entries(source, path)
    if MANIFEST not in entries:
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST} at its top")
    if entries[MANIFEST].file_size > _MOST_MANIFEST_BYTES:
        raise BundleError(f"{path}: {MANIFEST} is damaged: copy the bundle again")
    data = b"".join(_blocks(source, entries[MANIFEST], path))
    manifest = parse_manifest(data, str(path))
    for name in entries:
        if name != MANIFEST and name not in manifest.files:
            raise BundleError(f"{path}: its manifest does not list {name!r}")
    if sum(entry.size for entry in manifest.files.values()) > _most_bytes(path):
        raise BundleError(f"{path} would unpack to far more than its size: do not trust it")
    for name, expected in manifest.files.items():
        if name not in entries:
            raise BundleError(f"{path}: {name} is missing: copy the bundle again")
        if entries[name].file_size != expected.size:
            raise BundleError(f"{path}: {name} does not match its manifest: copy it again")
    return _Archive(path, source, entries, data, manifest)


def _blocks(source: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    """A file's content; anything wrong with it is an error of one line."""
    try:
        with source.open(entry) as stream:
            while block := stream.read(_BLOCK):
                yield block
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def _damaged(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path} is damaged or not a .zip ({error}): copy it again")


def _cache() -> Path:
    return cache_root() / "bundles"


def _holds(folder: Path, manifest: bytes) -> bool:
    """Whether a cached folder claims to hold this archive."""
    file = folder / MANIFEST
    try:
        return file.stat().st_size == len(manifest) and file.read_bytes() == manifest
    except OSError:
        return False


def _used(folder: Path, opened: T, room: int) -> T:
    """Mark a folder as used, and remove cached ones that have not been used for long.

    The others may take ``room`` bytes.
    """
    with contextlib.suppress(OSError):  # a read-only cache is not cleaned either
        os.utime(folder)
    unused = []
    for other in folder.parent.glob("[0-9a-f]*"):
        with contextlib.suppress(OSError):
            if _DIGEST.fullmatch(other.name) and other != folder:
                size = sum(file.stat().st_size for file in other.iterdir())
                unused.append((other.stat().st_mtime, size, other))
    places = _MOST_CACHED - 1
    for used, size, other in sorted(unused, reverse=True):
        room, places = room - size, places - 1
        # A bundle that was just opened may not have been loaded yet.
        if (room < 0 or places < 0) and time.time() - used > _JUST_USED:
            shutil.rmtree(other, ignore_errors=True)
    return opened


def _most_bytes(path: Path) -> int:
    """What a .zip of this size may unpack to; ours are stored, but may have been repacked."""
    return 20 * path.stat().st_size + (16 << 20)


def _entries(source: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in source.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not is_file_name(info.filename) or kind not in (0, stat.S_IFREG):
            raise BundleError(
                f"{path}: {info.filename!r} is not a plain file (a folder, a link?): "
                "do not trust it"
            )
        if info.compress_type not in METHODS:
            raise BundleError(f"{path}: {info.filename} has an unsupported compression method")
        if info.filename in entries:
            raise BundleError(f"{path}: {info.filename!r} is in it twice: do not trust it")
        entries[info.filename] = info
    return entries
