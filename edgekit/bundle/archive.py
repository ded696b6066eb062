"""Bundles as one .zip: written the same way every time, unpacked without trusting what is in it."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from edgekit.bundle.manifest import MANIFEST, BundleError, is_file_name, parse_manifest
from edgekit.core.errors import EdgekitError
from edgekit.core.files import file_sha256, write_atomically
from edgekit.core.folders import replace_folder
from edgekit.core.step_cache import cache_root

T = TypeVar("T")

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the earliest a .zip can say
_BLOCK: Final = 1 << 20
_MOST_MANIFEST_BYTES: Final = 16 << 20


def write_zip(path: Path, contents: Mapping[str, Path | bytes]) -> None:
    """Write a .zip whose bytes depend on names and contents alone: fixed dates and order.

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


def open_zip(path: Path, open_folder: Callable[[Path], T]) -> T:
    """Unpack ``path`` into the user's cache (once for its content) and open the folder.

    The folder is found by the SHA-256 of the whole .zip, so a .zip with a changed byte is never
    mistaken for one that was checked before.
    """
    try:
        folder = cache_root() / "bundles" / file_sha256(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    if folder.is_dir():
        try:
            return open_folder(folder)
        except BundleError:  # damaged in the cache, or refused for good: unpacking tells which
            pass
    try:
        replace_folder(folder, lambda target: _unpack(path, target))
    except BundleError:
        raise
    except EdgekitError as error:
        raise EdgekitError(
            f"cannot unpack {path} ({error}): set EDGEKIT_CACHE to a folder that can be written"
        ) from error
    try:
        return open_folder(folder)
    except BundleError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _unpack(path: Path, folder: Path) -> None:
    """Write the files that the manifest lists, no others, and none larger than it says."""
    try:
        with zipfile.ZipFile(path) as source:
            entries = _entries(source, path)
            if MANIFEST not in entries:
                raise BundleError(f"{path} is not a bundle: it has no {MANIFEST} at its top")
            info = entries[MANIFEST]
            if info.file_size > _MOST_MANIFEST_BYTES:
                raise BundleError(f"{path}: {MANIFEST} is damaged: copy the bundle again")
            data = source.read(info)
            manifest = parse_manifest(data, str(path))
            (folder / MANIFEST).write_bytes(data)
            for name in entries:
                if name != MANIFEST and name not in manifest.files:
                    raise BundleError(f"{path}: its manifest does not list {name!r}")
            if sum(entry.size for entry in manifest.files.values()) > _most_bytes(path):
                raise BundleError(f"{path} would unpack to far more than its size: do not trust it")
            for name, expected in manifest.files.items():
                if name not in entries:
                    raise BundleError(f"{path}: {name} is missing: copy the bundle again")
                if entries[name].file_size != expected.size:
                    raise BundleError(
                        f"{path}: {name} differs from what its manifest says: copy it again"
                    )
                with source.open(entries[name]) as stream, (folder / name).open("wb") as target:
                    shutil.copyfileobj(stream, target, _BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BundleError(f"{path} is damaged or no .zip ({error}): copy it again") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted; an unknown compression
        raise BundleError(f"{path} cannot be unpacked: {error}") from error


def _most_bytes(path: Path) -> int:
    """What a .zip of this size may unpack to; ours are stored, others may have packed it again."""
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
        if info.filename in entries:
            raise BundleError(f"{path}: {info.filename!r} is in it twice: do not trust it")
        entries[info.filename] = info
    return entries
