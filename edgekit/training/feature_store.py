"""Arrays of features on disk, [rows, ...] float32, written in shards and memory-mapped.

A shard is an .npy file followed by the SHA-256 of its content. Shards appear whole or not at
all, so an interrupted run resumes after the last one; a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.core.files import write_bytes
from edgekit.data.base import IndexArray

SHARD_ROWS = 1024
_DIGEST = 32  # bytes

Floats = NDArray[np.float32]


class ArrayStore:
    """The rows of a folder of shards; opening it checks every shard."""

    def __init__(self, folder: Path, count: int) -> None:
        self._count = count
        self._shards: list[Floats] = []
        for start in range(0, count, SHARD_ROWS):
            path = shard_path(folder, start)
            if not is_intact(path):
                raise EdgekitError(f"{path} is missing or damaged: run the same command again")
            self._shards.append(np.load(path, mmap_mode="r"))

    def __len__(self) -> int:
        return self._count

    def rows(self, indices: IndexArray) -> Floats:
        """Rows ``indices`` [M], in that order, as a copy in memory [M, ...]."""
        result = np.empty((len(indices), *self._shards[0].shape[1:]), np.float32)
        shard_of = indices // SHARD_ROWS
        for shard in np.unique(shard_of).tolist():
            mine = shard_of == shard
            result[mine] = self._shards[shard][indices[mine] % SHARD_ROWS]
        return result

    def first_values(self) -> Floats:
        """The first number of every row [rows]: NaN marks a row without an image."""
        return np.concatenate([shard.reshape(len(shard), -1)[:, 0] for shard in self._shards])


def fill_store(folder: Path, count: int, compute: Callable[[int, int], Floats]) -> None:
    """Compute the missing shards; ``compute(start, stop)`` returns these rows."""
    for start in range(0, count, SHARD_ROWS):
        path = shard_path(folder, start)
        if is_intact(path):
            continue
        stream = io.BytesIO()
        np.save(stream, compute(start, min(start + SHARD_ROWS, count)), allow_pickle=False)
        content = stream.getvalue()
        write_bytes(path, content + hashlib.sha256(content).digest())


def missing_rows(folder: Path, count: int) -> int:
    """How many rows `fill_store` would compute."""
    return sum(
        min(SHARD_ROWS, count - start)
        for start in range(0, count, SHARD_ROWS)
        if not is_intact(shard_path(folder, start))
    )


def shard_path(folder: Path, start: int) -> Path:
    """The file of the shard whose first row is ``start``."""
    return folder / f"{start:08d}.npy"


def is_intact(path: Path) -> bool:
    """Whether the shard exists and is undamaged."""
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EdgekitError(f"cannot read {path}: {error.strerror}") from error
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]
