"""Reads an untrusted .npz: sizes are checked in the headers before anything is unpacked."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.core.damage import DAMAGE, METHODS
from edgekit.core.errors import UsageError

_MOST_ARRAYS = 64
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What an array says about itself; nothing of it need be true."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def impossible(self) -> bool:
        """Whether a dimension is negative."""
        return min(self.shape, default=0) < 0


def read_header(stream: IO[bytes]) -> Header:
    """The header that ``stream`` begins with, up to the first value; ValueError for none."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"unknown .npy version {version[0]}.{version[1]}")
    return Header(*_HEADERS[version](stream))


class NpzError(UsageError):
    """A file does not hold the arrays it should."""


def read_arrays(path: Path, *, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Every array of the file, in total at most ``most_bytes``; nothing is unpickled."""
    arrays: dict[str, NDArray[Any]] = {}
    left = most_bytes
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote: they are read
            members = archive.infolist()
            if len(members) > _MOST_ARRAYS:
                raise ValueError(f"it has {len(members)} members")
            for info in members:
                if info.compress_type not in METHODS:
                    raise ValueError(f"'{info.filename}' is packed in a way that is not read here")
                with archive.open(info) as stream:
                    size = _checked_size(stream, info, left)
                left -= size
                with archive.open(info) as stream:
                    array = np.lib.format.read_array(stream, allow_pickle=False)
                arrays[info.filename.removesuffix(".npy")] = np.asarray(array)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NpzError(f"{path} cannot be read ({reason}): build the bundle again") from error
    return arrays


def _checked_size(stream: IO[bytes], info: zipfile.ZipInfo, left: int) -> int:
    """An array's bytes according to its header, if that is true and not too much."""
    header = read_header(stream)
    if header.dtype.hasobject:
        raise ValueError(f"'{info.filename}' holds Python objects")
    if header.impossible or header.size > left:
        raise ValueError(f"'{info.filename}' claims to have {header.size} bytes")
    if info.file_size != stream.tell() + header.size:
        raise ValueError(f"'{info.filename}' is not as long as its header claims")
    return header.size
