"""Reads an .npz of somebody else: sizes are known from the headers before anything is unpacked."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.damage import DAMAGE, METHODS
from edgekit.core.errors import UsageError

_MOST_ARRAYS = 64
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpzError(UsageError):
    """A file that does not hold the arrays it should."""


def read_arrays(path: Path, *, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Every array of the file, ``most_bytes`` at most together; nothing is unpickled."""
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
    """How many bytes an array has by its own header, if that is the truth and not too much."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"'{info.filename}' is of .npy version {version}")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError(f"'{info.filename}' holds Python objects")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or size > left:
        raise ValueError(f"'{info.filename}' says it has {size} bytes")
    if info.file_size != stream.tell() + size:
        raise ValueError(f"'{info.filename}' is not as long as its header says")
    return size
