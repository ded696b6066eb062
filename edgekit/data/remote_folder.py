"""Images in an object store: s3://, gs:// and memory:// through fsspec, read by reference.

Only URLs travel to other processes and machines; each fetches what it needs, and keeps it in
`edgekit.data.remote_cache`. Credentials are those that the store's own tools use (environment,
profiles, roles): edgekit neither takes nor shows any.

Whoever fills the bucket is not trusted: its names never become names on this disk, its listing must
end, and no more is read of a file than the store said its size was, nor more than fits.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.limits import check_size, memory_limit
from edgekit.core.packages import missing, require
from edgekit.core.threads import in_order
from edgekit.data.decode import BadImage
from edgekit.data.folder import counts, is_image, kind_of, tell_left_out
from edgekit.data.remote_cache import LIMIT, RemoteCache

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_STORES: Final = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "memory": ("fsspec", "s3")}
"""The package that speaks to a store, and edgekit's extra with it."""
_MOST_FILES: Final = 5_000_000
_MOST_DEPTH: Final = 16  # folders in folders
_ANSWER_SECONDS: Final = 120.0  # for one folder's listing, or one image
_AT_ONCE: Final = 16  # requests
_BLOCK: Final = 16 << 20  # bytes of a large file that are asked for at once
_TEXTS: Final = ("classes.txt",)
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b")


class Version(NamedTuple):
    """What a store tells of a file's content without sending it."""

    size: int
    tag: str  # "" if it tells nothing


class _Listed(NamedTuple):
    """The content of a folder."""

    folders: tuple[str, ...]  # names
    files: dict[str, Version]  # by name: images, and texts that say something of them
    other: Counter[str]


def is_url(uri: str) -> bool:
    """Whether data are named by a URL."""
    return _SCHEME.match(uri) is not None


class RemoteFolder:
    """A `edgekit.data.folder.Folder` behind a URL. It is listed once, when it is first asked."""

    def __init__(self, url: str) -> None:
        self._url = checked(url).rstrip("/")
        self._versions: dict[str, Version] = {}  # by path: of the images
        self._last: tuple[str, bytes] = "", b""
        self._part = False  # of a larger one
        self._versioned = True  # whether versions are known, or worth a question

    def __getstate__(self) -> dict[str, Any]:
        """Workers get the version of each file, but no listing and no connection.

        Not of the files of a folder's parts: there are 75 of ImageNet-C, and each is read once.
        """
        kept = {"_url": self._url, "_last": ("", b""), "_part": self._part}
        versions = {} if self._part else self._versions
        return {**kept, "_versions": versions, "_versioned": not self._part}

    def at(self, below: str) -> str:
        """The URL."""
        return f"{self._url}/{below}" if below else self._url

    def inside(self, below: str) -> RemoteFolder:
        """As `Folder.inside`."""
        folder = RemoteFolder(self.at(below))
        folder._part = True
        start = f"{below}/"
        tree = {
            path[len(start) :]: listed
            for path, listed in self._tree.items()
            if path.startswith(start)
        }
        folder._tree = {"": self._tree[below], **tree}
        return folder

    def folders(self, below: str = "") -> list[str]:
        """As `Folder.folders`."""
        return [name for name in self._listed(below).folders if counts(name)]

    def images(self, below: str) -> Iterator[str]:
        """As `Folder.images`."""
        other: Counter[str] = Counter()
        yield from self._images(below.strip("/"), other)
        tell_left_out(self.at(below), other)

    def has_file(self, below: str) -> bool:
        """As `Folder.has_file`."""
        if "_tree" in self.__dict__:
            folder, _, name = below.rpartition("/")
            return folder in self._tree and name in self._tree[folder].files
        with _explained(self.at(below)):
            return bool(self._store.isfile(self._path(below)))

    def open(self, below: str) -> BinaryIO:
        """As `Folder.open`: its content, in memory."""
        return io.BytesIO(self._content(below))

    def digest(self, below: str) -> str:
        """As `Folder.digest`; nothing is fetched if this version was fetched before."""
        key = self._key(below)
        known = None if key is None else self._cache.digest(key)
        return known or hashlib.sha256(self._content(below)).hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 that changes when a file does, as far as the store tells."""
        total = hashlib.sha256(self._url.encode())
        for path, listed in sorted(self._tree.items()):
            for name, version in sorted(listed.files.items()):
                total.update(f"{path}/{name}\n{version.size} {version.tag}\n".encode())
        return total.hexdigest()

    def _images(self, below: str, other: Counter[str]) -> Iterator[str]:
        listed = self._listed(below)
        other.update(listed.other)
        for name, version in sorted(listed.files.items()):
            if is_image(name):
                path = f"{below}/{name}"
                self._versions[path] = version
                yield path
        for name in listed.folders:
            yield from self._images(f"{below}/{name}", other)

    def _content(self, below: str) -> bytes:
        """A file's content: that of the last one asked for, from the cache, or from the store."""
        last, content_of_last = self._last
        if last == below:
            return content_of_last
        key = self._key(below)
        content = None if key is None else self._cache.read(key)
        if content is None:
            content = self._fetched(below)
            if key is not None:
                self._cache.write(key, content)
        self._last = below, content  # an image is asked for its pixels and for its digest
        return content

    def _fetched(self, below: str) -> bytes:
        path, url, version = self._path(below), self.at(below), self.version(below)
        hint = "make it smaller; "
        if version is not None:
            check_size(version.size, url, BadImage, hint=hint)
            if not version.size:  # no store can send a part of nothing
                return b""
        most = memory_limit() + 1 if version is None else version.size
        with _explained(url):
            content = self._store.cat_file(path, start=0, end=most, timeout=_ANSWER_SECONDS)
        check_size(len(content), url, BadImage, hint=hint)
        if version is not None and len(content) != version.size:
            raise BadImage(
                f"{url} has {len(content)} bytes and not {version.size}, as the store said: it "
                "was changed, start again"
            )
        return bytes(content)

    def file(self, below: str) -> Path:
        """A large file, on this disk; its content begins after the cache's digest."""
        path, url, version = self._path(below), self.at(below), self.version(below)
        key = self._key(below) or url
        if version is not None and version.tag and (there := self._cache.file(key)) is not None:
            return there
        size = 0 if version is None else version.size
        if size > self._cache.most:
            raise UsageError(
                f"{url} has {size >> 20} MiB, more than the cache holds: set {LIMIT} to more"
            )
        try:
            self._cache.write_blocks(key, self._blocks(path, url, size))
        except OSError as error:
            raise EdgekitError(
                f"cannot keep {url} in {self._cache.folder} ({error.strerror}): set EDGEKIT_CACHE "
                "to another folder"
            ) from error
        kept = self._cache.file(key)
        if kept is None:
            raise EdgekitError(f"{url} is not in the cache any more: set {LIMIT} to more")
        return kept

    def _blocks(self, path: str, url: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, _BLOCK):
            end = min(size, start + _BLOCK)
            with _explained(url):
                block = self._store.cat_file(path, start=start, end=end, timeout=_ANSWER_SECONDS)
            if len(block) != end - start:
                raise BadImage(f"{url} ends before its {size} bytes: it was changed, start again")
            yield block

    def version(self, below: str) -> Version | None:
        """What the store tells of a file; None if it is not worth the question."""
        if below not in self._versions and self._versioned:
            path = self._path(below)
            with _explained(self.at(below)):
                self._versions[below] = version_of(self._store.info(path))
        return self._versions.get(below)

    def _key(self, below: str) -> str | None:
        """What this version of a file is kept under; None if the store does not tell versions."""
        version = self.version(below)
        if version is None or not version.tag:
            return None
        return f"{self.at(below)}\n{version.size} {version.tag}"

    def _path(self, below: str) -> str:
        """What the store calls a file."""
        if below.startswith("/") or {"", ".", ".."} & set(below.split("/")) or is_url(below):
            raise BadImage(f"{below} is not below {self._url}: name files that are")
        return f"{self._root}/{below}"

    @cached_property
    def _cache(self) -> RemoteCache:
        return RemoteCache.open()

    @cached_property
    def _store(self) -> Any:
        return store_of(self._url)

    @cached_property
    def _root(self) -> str:
        return str(self._store._strip_protocol(self._url)).rstrip("/")

    def _listed(self, below: str) -> _Listed:
        below = below.strip("/")
        if below not in self._tree:
            raise UsageError(f"{self._url} has no folder '{below}'")
        return self._tree[below]

    @cached_property
    def _tree(self) -> dict[str, _Listed]:
        """All folders, level by level, several at once."""
        tree: dict[str, _Listed] = {}
        level, files = [""], 0
        for _ in range(_MOST_DEPTH):
            below: list[str] = []
            listings = in_order(self._list, level, _AT_ONCE, f"listing {self._url}")
            for folder, listed in zip(level, listings, strict=True):
                tree[folder] = listed
                files += len(listed.files) + len(listed.folders) + listed.other.total()
                if files > _MOST_FILES:
                    raise UsageError(
                        f"{self._url} has more than {_MOST_FILES:,} files and folders: name a "
                        "smaller part of it"
                    )
                below += [f"{folder}/{name}".lstrip("/") for name in listed.folders]
            if not below:
                break
            level = below
        else:
            raise UsageError(
                f"{self._url} has folders in folders more than {_MOST_DEPTH} deep, such as "
                f"{level[0][:100]}: name a part of it"
            )
        if not tree[""].folders and not tree[""].files and not tree[""].other:
            raise UsageError(f"nothing is at {self._url}")
        return tree

    def _list(self, below: str) -> _Listed:
        path = f"{self._root}/{below}".rstrip("/")
        with _explained(self.at(below)):
            entries = self._store.ls(path, detail=True, timeout=_ANSWER_SECONDS)
        folders, files, other = set(), {}, Counter[str]()
        for entry in entries:
            name = str(entry["name"]).rstrip("/")
            if name == path:  # the mark of an empty folder
                continue
            base = name.rpartition("/")[2]
            # Names that no file system has, which only somebody who means harm gives.
            odd = f"{path}/{base}" != name or base in ("", ".", "..") or "\0" in base
            if odd or base.startswith("."):
                continue
            if entry["type"] == "directory":
                folders.add(base)
            elif is_image(base) or base in _TEXTS:
                files[base] = version_of(entry)
            else:
                other[kind_of(base)] += 1
        return _Listed(tuple(sorted(folders)), files, other)


def checked(url: str) -> str:
    """A URL that edgekit reads; others are refused, without a word of what may be a password."""
    match = _SCHEME.match(url)
    scheme = match[1] if match else ""
    if scheme not in _STORES:
        raise UsageError(f"'{scheme}://' is not read: use s3://BUCKET/FOLDER or gs://BUCKET/FOLDER")
    place = url[len(scheme) + 3 :]
    if "@" in place.partition("/")[0] or "?" in place or "::" in place:
        raise UsageError(
            f"a {scheme}:// URL has a bucket and a folder, and nothing else: credentials come from "
            "where the store's own tools take them"
        )
    if not place.strip("/") or ".." in place.split("/"):
        raise UsageError(f"{url} names no folder: use {scheme}://BUCKET/FOLDER")
    return url


def store_of(url: str) -> Any:
    """fsspec's connection to a URL's store."""
    scheme = url.partition(":")[0]
    package, extra = _STORES[scheme]
    require(("fsspec", package), f"{scheme}://", extra)
    import fsspec

    try:
        with _explained(url):
            return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        raise missing(package, f"{scheme}://", extra) from error


def version_of(entry: dict[str, Any]) -> Version:
    """What a store's answer says of a file."""
    size = entry.get("size")
    if not isinstance(size, int) or size < 0:
        raise BadImage(f"the store says no size of {entry.get('name')}")
    names = ("ETag", "etag", "md5Hash", "generation", "created")
    return Version(size, next((str(entry[name]) for name in names if entry.get(name)), ""))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Say what a store's library says, in one line and without credentials."""
    try:
        yield
    except (EdgekitError, ImportError):
        raise
    except FileNotFoundError as error:
        raise BadImage(f"nothing is at {url}") from error
    except PermissionError as error:
        raise EdgekitError(
            f"{url} may not be read with the credentials that are set here: check them with the "
            "store's own tool"
        ) from error
    except Exception as error:  # noqa: BLE001 # each store's library has errors of its own
        if "Timeout" in type(error).__name__:
            reason = f"no whole answer in {_ANSWER_SECONDS:.0f} s: is it a listing without end?"
        else:
            reason = _without_secrets(error)
        raise EdgekitError(f"cannot read {url}: {reason}") from None


def _without_secrets(error: Exception) -> str:
    text = str(error) or type(error).__name__
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET.search(name):
            text = text.replace(value, "***")
    return one_line(ValueError(_ACCESS_KEY.sub("***", text)))
