"""What a monitor keeps in its file, so that it goes on after a reboot."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.core.documents import Document, DocumentError, parse_json, read
from edgekit.core.errors import UsageError
from edgekit.core.files import read_regular
from edgekit.field.detector import Detector
from edgekit.field.reference import FieldReference

RECENT: Final = 256  # images whose classes and codewords are remembered
_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD: Final = (1 << 64) - 1
_REMEDY: Final = "remove the file to begin anew"


@dataclass(frozen=True)
class Alarm:
    """When it was raised."""

    image: int  # images seen by then
    time: float
    since_image: int


@dataclass(frozen=True)
class Seen:
    """One of the last images."""

    symbol: int
    label: int  # predicted
    code: int
    time: float
    learned: bool  # as normal


@dataclass
class State:
    """What a monitor knows besides its detector's evidence."""

    reference: str  # its digest
    seed: int
    images: int = 0
    skipped: int = 0
    repeats: int = 0
    changed: bool = False
    since_image: int | None = None
    since_time: float | None = None
    alarms: tuple[Alarm, ...] = ()
    accepted: tuple[int, ...] = ()  # what is normal, if not the reference

    @classmethod
    def begin(cls, reference: FieldReference) -> State:
        """Nothing seen yet."""
        return cls(digest(reference), secrets.randbits(63))

    def after_accepting(self, symbols: tuple[int, ...]) -> State:
        """Begin anew, with ``symbols`` as what is normal."""
        return State(self.reference, secrets.randbits(63), alarms=self.alarms, accepted=symbols)


@dataclass(frozen=True)
class _Document(Document):
    """The file."""

    SCHEMA: ClassVar = 2

    reference: str
    seed: int
    images: int
    skipped: int
    repeats: int
    changed: bool
    since_image: int | None
    since_time: float | None
    alarms: tuple[Alarm, ...]
    accepted: tuple[int, ...]
    threshold: float
    counted: int  # images in the detector
    counts: tuple[tuple[int, ...], ...]
    evidence: tuple[float | None, ...]  # None for none at all
    peak: tuple[float, ...]
    since: tuple[int, ...]
    learned: tuple[tuple[float, ...], ...]
    recent: tuple[Seen, ...]


def digest(reference: FieldReference) -> str:
    """Tells references apart."""
    text = json.dumps(reference.to_dict(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def chance_of(seed: int, image: int) -> float:
    """Uniform in [0, 1), from the seed and the image's number alone (splitmix64)."""
    word = (seed + (image + 1) * 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * _MIX[0]) & _WORD
    word = ((word ^ (word >> 27)) * _MIX[1]) & _WORD
    return float((word ^ (word >> 31)) >> 11) / float(1 << 53)


def stored_threshold(data: bytes, path: Path) -> float:
    """The images a false alarm that the monitor with this file promises."""
    return float(np.exp(min(_parsed(data, path).threshold, 100.0)))


def stored_recent(path: Path, reference: FieldReference) -> tuple[Seen, ...]:
    """The last images that the monitor with this file has seen."""
    found = _parsed(read_regular(path), path)
    _check_owner(found, path, reference)
    return found.recent[-RECENT:]


def state_bytes(state: State, detector: Detector, recent: Iterable[Seen]) -> bytes:
    """The file's content."""
    document = _Document(
        **vars(state),
        threshold=detector.threshold,
        counted=detector.images,
        counts=tuple(map(tuple, detector.counts.tolist())),
        evidence=tuple(
            value if np.isfinite(value) else None for value in detector.evidence.tolist()
        ),
        peak=tuple(detector.peak.tolist()),
        since=tuple(detector.since.tolist()),
        learned=tuple(map(tuple, detector.learned.tolist())),
        recent=tuple(recent),
    )
    return (json.dumps(document.to_dict(), separators=(",", ":")) + "\n").encode()


def state_from(
    data: bytes,
    path: Path,
    detector: Detector,
    recent: deque[Seen],
    reference: FieldReference,
) -> State:
    """Fill the ``detector`` and ``recent`` from a file; returns the rest."""
    found = _parsed(data, path)
    _check_owner(found, path, reference)
    due = (detector.counts, detector.evidence, detector.peak, detector.since, detector.learned)
    if not all(
        _fits(rows, table)
        for rows, table in zip(
            (found.counts, found.evidence, found.peak, found.since, found.learned), due, strict=True
        )
    ):
        raise DocumentError(f"{path} is damaged: its tables have other sizes: {_REMEDY}")
    counts, learned = np.array(found.counts, np.int64), np.array(found.learned, np.float64)
    if counts.min() < 0 or learned.min() < 0:
        raise DocumentError(f"{path} is damaged: it counts less than nothing: {_REMEDY}")
    detector.counts = counts
    detector.evidence = np.array(
        [-np.inf if value is None else value for value in found.evidence], np.float64
    )
    detector.peak = np.array(found.peak, np.float64)
    detector.since = np.array(found.since, np.int64)
    detector.learned = learned
    detector.images = found.counted
    recent.extend(found.recent[-RECENT:])
    names = State.__dataclass_fields__
    return State(**{name: getattr(found, name) for name in names})


def _fits(rows: Sequence[object], table: NDArray[Any]) -> bool:
    """Whether a table that was read has the shape of another; numpy makes none of ragged rows."""
    if table.ndim == 1:
        return len(rows) == len(table)
    widths = {len(row) for row in rows if isinstance(row, tuple)}
    return len(rows) == len(table) and widths == {table.shape[1]}


def _parsed(data: bytes, path: Path) -> _Document:
    document = parse_json(data, str(path))
    return read(_Document, document, str(path), schema=_Document.SCHEMA, remedy=_REMEDY)


def _check_owner(found: _Document, path: Path, reference: FieldReference) -> None:
    if found.reference != digest(reference):
        raise UsageError(
            f"{path} is the state of another bundle's monitor: name another file, or remove it"
        )
    for seen in found.recent:
        known = 0 <= seen.code < reference.size and 0 <= seen.label < reference.classes
        if not (0 <= seen.symbol < reference.symbols and known):
            raise DocumentError(f"{path} is damaged: a codeword or class does not exist: {_REMEDY}")
