"""Caches answers in a bounded folder, shared by any number of processes.

One folder holds one model's answers to one kind of pixels, one file per image. Files are written
under another name and renamed, so a reader sees a whole file or none, and they carry a digest, so
a damaged one is detected and computed again. When the bound is reached, the least recently used
folders are emptied; one that a running comparison reads is never touched. If nothing can be
dropped, new answers are not cached.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.runtime.answers import Answers

LIMIT = "EDGEKIT_PARITY_CACHE_MB"  # the environment variable
DEFAULT_BYTES = 4 << 30
_LEFT_AFTER_EVICTION = 0.9  # of the bound: evicting needs a scan, so it is done in batches
_AHEAD = 1 << 20  # bytes that a writer takes at once, where there is plenty of room
_LOWEST = -6e4  # of a log-probability: half precision ends at -65,504
_LOCK = "lock"
_PARTIAL = ".new-"  # prefix of files that are being written


class Outputs(NamedTuple):
    """The part of a model's answers to B images that is compared: at most half the logits' size.

    Log-probabilities are in half precision, which is most exact where the probability is large, and
    that is where the divergence comes from. The winner is taken before rounding.
    """

    top: NDArray[np.int64]  # [B], the winning class; -1 where the logits are not finite
    log_p: NDArray[np.float16]  # [B, classes]
    code: NDArray[np.int64] | None  # [B] or [B, P]; None without a codebook
    margin: NDArray[np.float32] | None  # shaped like code; None where it was left out


class CachedAnswers(NamedTuple):
    """The cached answers to an image's variants."""

    labels: list[str]  # one for each row of `outputs`
    outputs: Outputs | None


NO_ANSWERS = CachedAnswers([], None)


def condense(answers: Answers) -> Outputs:
    """Reduce a model's answers to what the comparison needs."""
    logits = answers.logits
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(logits).all(axis=1))
    values = np.where(finite[:, None], logits, 0).astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    top = np.where(finite, logits.argmax(axis=1), -1)
    log_p = np.maximum(values, _LOWEST).astype(np.float16)
    return Outputs(top.astype(np.int64), log_p, answers.code, answers.margin)


def take_outputs(outputs: Outputs, rows: Sequence[int]) -> Outputs:
    """Some rows of the outputs."""
    where = list(rows)
    return Outputs(*(None if value is None else value[where] for value in outputs))  # type: ignore[arg-type]


def join_outputs(one: Outputs | None, two: Outputs) -> Outputs:
    """Concatenate outputs."""
    if one is None:
        return two
    pairs = zip(one, two, strict=True)
    return Outputs(
        *(None if a is None or b is None else np.concatenate((a, b)) for a, b in pairs)  # type: ignore[arg-type]
    )


def limit_bytes() -> int:
    """The bound set by the user, or 4 GiB."""
    text = os.environ.get(LIMIT)
    if text is None:
        return DEFAULT_BYTES
    if not text.isdecimal():
        raise UsageError(f"{LIMIT} must be a number of megabytes such as 4096, not '{text}'")
    return int(text) << 20


class Shelf:
    """The answers of one model to one kind of pixels. Made by `AnswerCache.shelf`."""

    def __init__(self, cache: AnswerCache, folder: Path) -> None:
        self._cache, self._folder = cache, folder

    def read(self, image: str) -> CachedAnswers:
        """The cached answers to an image, by its digest."""
        try:
            content = self._path(image).read_bytes()
        except FileNotFoundError:
            return NO_ANSWERS
        return _parse(content)

    def write(self, image: str, known: CachedAnswers) -> None:
        """Replace the cached answers, if there is room."""
        self._cache.put(self._path(image), _serialize(known))

    def clear(self) -> None:
        """Drop all of them."""
        self._cache.drop(_files(self._folder))

    def _path(self, image: str) -> Path:
        return self._folder / image[:40]


class AnswerCache:
    """Cached answers in ``folder``, at most ``max_bytes`` of them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._full = False
        self._taken = 0  # bytes that are counted in the sum and not written yet

    @contextmanager
    def shelf(self, key: str) -> Iterator[Shelf]:
        """The answers under ``key``; no process drops any of them until this is closed."""
        folder = self.folder / hashlib.sha256(key.encode()).hexdigest()[:40]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / _LOCK).open("ab")
        except OSError as error:
            raise EdgekitError(
                f"cannot cache answers in {folder} ({error.strerror}): set EDGEKIT_CACHE to "
                "another folder"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_SH)  # released when the file closes
            os.utime(folder / _LOCK)  # eviction goes by this time
            try:
                yield Shelf(self, folder)
            finally:
                with suppress(OSError):
                    self._give_back()

    def put(self, path: Path, content: bytes) -> None:
        """Write a file of an open shelf, if there is room for it."""
        if self._full:
            return
        try:
            self._put(path, content)
        except OSError as error:
            raise EdgekitError(f"cannot cache answers in {path}: {error.strerror}") from error

    def _put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not synced to disk: the digest catches what a power cut tears.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            if not self._placed(partial, len(content), path):
                self._full = True
                partial.unlink()
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _placed(self, partial: Path, size: int, path: Path) -> bool:
        """Rename a file of ``size`` bytes, counted in the sum of all writers, if there is room.

        Room is taken from it for many files at once, as taking turns costs more than writing one;
        a writer that evicts then does not know of it, and may go so far beyond the bound.
        """
        more = size - _size(path)
        if more <= self._taken:
            self._taken -= more
            partial.replace(path)
            return True
        with self._locked():
            total = self._total()
            if total + more > self.max_bytes:
                total = self._evict(size)
                more = size - _size(path)
            if total + more > self.max_bytes:
                return False
            ahead = _AHEAD if total + more + 256 * _AHEAD <= self.max_bytes else 0
            # Counted first: a crash in between only makes the sum too large.
            (self.folder / "total").write_text(str(total + more + ahead))
            self._taken += ahead
            partial.replace(path)  # before another writer evicts, and counts anew
        return True

    def _give_back(self) -> None:
        """Return the room that was taken and not used."""
        if not self._taken:
            return
        with self._locked():
            total, self._taken = self._total() - self._taken, 0
            (self.folder / "total").write_text(str(max(0, total)))

    def drop(self, paths: Sequence[Path]) -> None:
        """Remove files of an open shelf."""
        with self._locked():
            total = self._total() - sum(_size(path) for path in paths)
            for path in paths:
                path.unlink(missing_ok=True)
            (self.folder / "total").write_text(str(max(0, total)))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / _LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _total(self) -> int:
        """Bytes of all files as the writers track them; recounted if that record is lost."""
        try:
            return int((self.folder / "total").read_text())
        except (FileNotFoundError, ValueError):
            return self.bytes_used()

    def bytes_used(self) -> int:
        """Bytes of all cached answers, counted now."""
        return sum(_size(path) for folder in self._folders() for path in _files(folder))

    def _evict(self, room: int) -> int:
        """Drop answers that nobody reads until there is room; returns the bytes that remain."""
        total = self.bytes_used()
        allowed = max(0.0, self.max_bytes * _LEFT_AFTER_EVICTION - room)
        for folder in sorted(self._folders(), key=_last_used):
            if total <= allowed:
                break
            with (folder / _LOCK).open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # a comparison is running on it, perhaps this one
                    continue
                for abandoned in folder.glob(f"{_PARTIAL}*"):  # nobody else is writing here
                    abandoned.unlink(missing_ok=True)
                for path in _files(folder):
                    total -= _size(path)
                    path.unlink(missing_ok=True)
                    if total <= allowed:
                        break
        (self.folder / "total").write_text(str(total))
        return total

    def _folders(self) -> list[Path]:
        return [entry for entry in self.folder.iterdir() if entry.is_dir()]


def _files(folder: Path) -> list[Path]:
    """The cached answers, without those being written."""
    names = (path for path in folder.iterdir() if path.name != _LOCK)
    return [path for path in names if not path.name.startswith(_PARTIAL)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_used(folder: Path) -> float:
    with suppress(FileNotFoundError):
        return (folder / _LOCK).stat().st_mtime
    return 0.0


_STORED = {"top": "<i4", "log_p": "<f2", "code": "<i4", "margin": "<f4"}
_DIGEST_BYTES = 16  # bytes at the start of a file, over all that follows


def _serialize(known: CachedAnswers) -> bytes:
    """A digest, the length of a JSON header, the header, and the arrays' bytes."""
    assert known.outputs is not None
    arrays = {
        name: np.ascontiguousarray(value, _STORED[name])
        for name, value in known.outputs._asdict().items()
        if value is not None
    }
    shapes = {name: value.shape for name, value in arrays.items()}
    header = json.dumps({"labels": known.labels, "shapes": shapes}).encode()
    body = b"".join((len(header).to_bytes(4, "little"), header, *map(bytes, arrays.values())))
    return _digest(body) + body


def _parse(content: bytes) -> CachedAnswers:
    """The answers in a file; none if it is damaged."""
    body = content[_DIGEST_BYTES:]
    if len(body) < 4 or _digest(body) != content[:_DIGEST_BYTES]:
        return NO_ANSWERS
    start = 4 + int.from_bytes(body[:4], "little")
    header = json.loads(body[4:start])
    arrays: dict[str, NDArray[np.generic] | None] = dict.fromkeys(_STORED)
    for name, shape in header["shapes"].items():
        count = int(np.prod(shape))
        array = np.frombuffer(body, _STORED[name], count, start).reshape(shape)
        start += array.nbytes
        arrays[name] = array.astype(np.int64) if array.dtype.kind == "i" else array
    return CachedAnswers(header["labels"], Outputs(**arrays))  # type: ignore[arg-type]


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
