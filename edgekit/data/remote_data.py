"""Opens data by URL, as `edgekit.data.datasets` opens those of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.data.arrays import NpzDataset
from edgekit.data.image_files import FileDataset, open_folder, open_list
from edgekit.data.remote_cache import DIGEST_BYTES
from edgekit.data.remote_folder import RemoteFolder, checked

_LISTS = (".csv", ".jsonl")


class RemoteNpz(NpzDataset):
    """An .npz file behind a URL, which is fetched whole. A pickled one fetches it again."""

    def __init__(self, url: str, sha256: str = "") -> None:
        folder, file = _parted(url)
        path = folder.file(file)
        with path.open("rb") as stream:
            self._url, self._sha256 = url, stream.read(DIGEST_BYTES).hex()
        if sha256 not in ("", self._sha256):
            raise EdgekitError(f"{url} was changed since it was opened first: start again")
        super().__init__(path, url)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteNpz, (self._url, self._sha256)


def open_remote(url: str) -> FileDataset | RemoteNpz:
    """A folder of class folders, a list beside its images, or an .npz file."""
    if _is_file(url, (".npz",)):
        return RemoteNpz(url)
    if _is_file(url, _LISTS):
        return open_list(*_parted(url), url)
    return open_folder(RemoteFolder(url), url)


def remote_fingerprint(url: str) -> str:
    """A hash that changes when the data do, as far as the store tells without sending them."""
    if _is_file(url, (".npz", *_LISTS)):
        folder, file = _parted(url)
        return hashlib.sha256(f"{url}\n{folder.version(file)}".encode()).hexdigest()
    return RemoteFolder(url).fingerprint()


def _is_file(url: str, suffixes: tuple[str, ...]) -> bool:
    return Path(url).suffix.lower() in suffixes


def _parted(url: str) -> tuple[RemoteFolder, str]:
    """The folder and the name of a file."""
    folder, _, file = checked(url).rpartition("/")
    if folder.endswith("/"):
        raise UsageError(f"{url}: a file at the top of a bucket has no folder: put it into one")
    return RemoteFolder(folder), file
