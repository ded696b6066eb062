"""Where image files are: `Folder` is what data sets ask for, `LocalFolder` one of this machine."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from edgekit.core.errors import UsageError
from edgekit.core.files import open_regular
from edgekit.core.limits import check_size
from edgekit.data.decode import BadImage

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp")

_log = logging.getLogger(__name__)


class Folder(Protocol):
    """A folder of files; ``below`` is a path relative to it, with '/'."""

    def at(self, below: str) -> str:
        """What error messages call a file or folder."""

    def inside(self, below: str) -> Folder:
        """A folder in it."""

    def folders(self, below: str = "") -> list[str]:
        """The names of the folders in it, sorted, without hidden ones and macOS litter."""

    def images(self, below: str) -> Iterator[str]:
        """The image files anywhere under ``below``, relative to this folder, in a fixed order."""

    def has_file(self, below: str) -> bool:
        """Whether there is such a file."""

    def open(self, below: str) -> BinaryIO:
        """Open a file for reading; OSError or `BadImage` if that cannot be."""

    def digest(self, below: str) -> str:
        """SHA-256 of a file, as sha256sum prints it; `BadImage` if it cannot be read."""


@dataclass(frozen=True)
class LocalFolder:
    """A `Folder` of this machine."""

    path: Path

    def at(self, below: str) -> str:
        """The whole path."""
        return str(self.path / below)

    def inside(self, below: str) -> LocalFolder:
        """As `Folder.inside`."""
        return LocalFolder(self.path / below)

    def folders(self, below: str = "") -> list[str]:
        """As `Folder.folders`."""
        parent = self.path / below
        try:
            with os.scandir(parent) as entries:
                return sorted(
                    entry.name for entry in entries if entry.is_dir() and counts(entry.name)
                )
        except OSError as error:
            raise UsageError(f"cannot read folder {parent}: {error.strerror}") from error

    def images(self, below: str) -> Iterator[str]:
        """As `Folder.images`."""
        other: Counter[str] = Counter()
        for folder, inner, files in os.walk(self.path / below, onerror=_unreadable):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            relative = Path(folder).relative_to(self.path).as_posix()
            for file in sorted(files):
                if file.startswith("."):
                    continue
                if is_image(file):
                    yield f"{relative}/{file}"
                else:
                    other[kind_of(file)] += 1
        tell_left_out(self.at(below), other)

    def has_file(self, below: str) -> bool:
        """As `Folder.has_file`."""
        return (self.path / below).is_file()

    def open(self, below: str) -> BinaryIO:
        """As `Folder.open`."""
        return open_regular(self.path / below)

    def digest(self, below: str) -> str:
        """As `Folder.digest`."""
        try:
            with self.open(below) as stream:
                total = hashlib.sha256()
                while block := stream.read(1 << 20):
                    total.update(block)
        except OSError as error:
            raise BadImage(f"cannot read image {self.at(below)}: {error.strerror}") from error
        return total.hexdigest()


def read_text(folder: Folder, below: str) -> str:
    """A UTF-8 text file, if it is not too large; OSError or UnicodeDecodeError."""
    with folder.open(below) as stream:
        size = stream.seek(0, os.SEEK_END)
        check_size(size, folder.at(below))
        stream.seek(0)
        return stream.read().decode("utf-8-sig")


def counts(folder: str) -> bool:
    """Whether a folder of this name may hold a class."""
    return not folder.startswith(".") and folder != "__MACOSX"


def is_image(file: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return file.lower().endswith(EXTENSIONS)


def kind_of(file: str) -> str:
    """What files that are no images are counted under."""
    return os.path.splitext(file)[1].lower() or file  # noqa: PTH122 (1.2 million times)


def tell_left_out(where: str, other: Counter[str]) -> None:
    """Warn of files that are no images."""
    for kind, count in other.items():
        _log.warning("%s: left out %d files of type '%s'", where, count, kind)


def _unreadable(error: OSError) -> None:
    raise UsageError(f"cannot read folder {error.filename}: {error.strerror}") from error
