"""Receives files on the device: what is there already, the next block, the final checksum.

Sent to the agent like `edgekit.devices.remote.facts`: standard Python 3.7 only. Every file is
staged under the SHA-256 it must have, with ``.part`` until it is complete; nothing could load a
staged file by its name.

Nothing is removed or replaced outside edgekit's own folder on the device (``root``), even through
links, whatever the host asks for.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

_PART = ".part"
_MOST_TEXT = 1 << 20  # characters of a file that is sent whole
_DIGEST = re.compile("[0-9a-f]{64}")


def survey(
    root: str, staging: str, present: str, files: dict[str, list[Any]]
) -> dict[str, dict[str, Any]]:
    """What is here of ``files`` (name: SHA-256, size): all of it, or a part and the part's hash.

    A complete file in the folder ``present`` is reused; a part is what an earlier copy left.
    """
    folder = _inside(root, staging)
    folder.mkdir(parents=True, exist_ok=True)
    digests = {digest for digest, _ in files.values()}
    for leftover in folder.iterdir():
        if leftover.name.replace(_PART, "") not in digests:
            leftover.unlink()
    answers: dict[str, dict[str, Any]] = {}
    for name, (digest, size) in files.items():
        _plain(name)
        if not _DIGEST.fullmatch(digest):
            raise OSError(errno.EINVAL, repr(digest) + " is not a SHA-256")
        staged, part, old = folder / digest, folder / (digest + _PART), Path(present) / name
        if present and not _is(staged, digest, size) and _is(old, digest, size):
            remove(root, str(staged))
            _link(old, staged)
        if _is(staged, digest, size):
            answers[name] = {"whole": True}
        else:
            length = min(part.stat().st_size, size) if part.is_file() else 0
            prefix = _sha256(part, length) if length else ""
            answers[name] = {"whole": False, "bytes": length, "sha256": prefix}
    return answers


def put(staging: str, digest: str, offset: int, data: bytes) -> int:
    """Write a block at ``offset``, where the part must end; bytes after it are cut off."""
    with (Path(staging) / (digest + _PART)).open("ab") as stream:
        if stream.tell() < offset:  # a block before it failed: no holes
            raise OSError(errno.ESPIPE, "a block is missing")
        stream.truncate(offset)
        stream.write(data)
        return stream.tell()


def finish(staging: str, digest: str) -> bool:
    """Complete the part if its hash is right and return True; otherwise remove it."""
    part = Path(staging) / (digest + _PART)
    part.touch()  # an empty file has no block
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    if _sha256(part, part.stat().st_size) != digest:
        part.unlink()
        return False
    part.replace(Path(staging) / digest)
    _sync_folder(Path(staging))
    return True


def whole(folder: str) -> bool:
    """Whether every file in a bundle's manifest is there, unchanged."""
    try:
        document = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    files = document.get("files") if isinstance(document, dict) else None
    return isinstance(files, dict) and all(
        isinstance(entry, dict) and _is(Path(folder) / name, entry.get("sha256"), entry.get("size"))
        for name, entry in files.items()
    )


def same(path: str, digest: str, size: int) -> bool:
    """Whether a file is there and has this content."""
    return _is(Path(path), digest, size)


def there(path: str) -> bool:
    """Whether something has this name, if only a link to nothing."""
    return os.path.lexists(path)


def entries(path: str) -> list[str]:
    """The names in a folder, but for hidden ones; none if it is not there."""
    try:
        return sorted(each.name for each in Path(path).iterdir() if each.name[0] != ".")
    except OSError:
        return []


def read(path: str) -> str | None:
    """A small text file; None if there is none."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MOST_TEXT + 1)
    except OSError:
        return None
    if len(text) > _MOST_TEXT:
        raise OSError(errno.EFBIG, path + " is larger than any file that edgekit writes")
    return text


def write(root: str, path: str, text: str) -> None:
    """Replace a small text file in one step."""
    target = _inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name("." + target.name + ".new")
    with new.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(target)
    _sync_folder(target.parent)


def remove(root: str, path: str) -> None:
    """Remove a file or folder below ``root``, if it exists; of a link, only the link."""
    target = _inside(root, path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(str(target), ignore_errors=True)
    elif target.exists() or target.is_symlink():
        target.unlink()


def name_all(root: str, staging: str, folder: str, names: dict[str, str]) -> None:
    """Give staged files (name: SHA-256) their names, in a new folder."""
    remove(root, folder)
    target = _inside(root, folder)
    target.mkdir(parents=True)
    for name, digest in names.items():
        _plain(name)
        _link(Path(staging) / digest, target / name)


def free_bytes(folder: str) -> int:
    """What can still be written where ``folder`` is or will be."""
    path = Path(folder)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def home(folder: str) -> str:
    """``folder`` with its ``~`` resolved, absolute."""
    return str(Path(folder).expanduser().absolute())


def _inside(root: str, path: str) -> Path:
    """``path`` with its parents' links resolved; an error unless that is below ``root``."""
    base, name = Path(root).resolve(), Path(path).name
    target = Path(path).parent.resolve() / name
    if name in ("", "..") or base not in target.parents:
        raise OSError(errno.EPERM, path + " is not in edgekit's folder " + str(base))
    return target


def _plain(name: str) -> None:
    if not name or "/" in name or name.startswith("."):
        raise OSError(errno.EINVAL, repr(name) + " is not a plain file name")


def _sync_folder(folder: Path) -> None:
    """Flush a new name to disk, where the file system can."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _is(path: Path, digest: Any, size: Any) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
        return False
    return bool(_sha256(path, size) == digest)


def _sha256(path: Path, length: int) -> str:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while length > 0:
            block = stream.read(min(1 << 20, length))
            if not block:
                break
            total.update(block)
            length -= len(block)
    return total.hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(str(source), str(target))
    except OSError:  # no hard links here; `edgekit.core.files.link` is not there either
        shutil.copyfile(str(source), str(target))
