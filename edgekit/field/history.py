"""The field against the lab, over time: which codewords were chosen, and how clearly.

For a figure of small multiples: the lab first, then the monitor's last images in a few parts of
equal size, the oldest first, all over the same codewords.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.field.reference import FieldReference
from edgekit.field.state import Seen, stored_recent

PARTS: Final = 4
_LEAST: Final = 25  # images that a part needs; with fewer, shares are noise
_SHOWN: Final = 48  # codewords of a large codebook that are worth a bar


@dataclass(frozen=True)
class Usage:
    """How some images were answered."""

    images: int
    first: float | None  # when the first was seen, in seconds since 1970; None in the lab
    last: float | None
    usage: tuple[float, ...]  # share of the images with each codeword of `FieldAgainstLab.codes`
    others: float  # share of the images with any other codeword
    margins: tuple[float, ...]  # share in each bin of the margin, the least clear first
    changed: int  # images that did not count as normal when they came


@dataclass(frozen=True)
class FieldAgainstLab:
    """What the figure shows."""

    kind: Literal["code", "class"]
    codes: tuple[int, ...]  # codewords, or classes; the most frequent of the lab first
    lab: Usage
    field: tuple[Usage, ...]  # the oldest first


def field_against_lab(
    reference: FieldReference, recent: Sequence[Seen], parts: int = PARTS
) -> FieldAgainstLab | None:
    """Compare a monitor's last images with the lab's clean ones; None for too few."""
    parts = min(parts, len(recent) // _LEAST)
    if parts < 1:
        return None
    lab = sum(cell.dense(reference.symbols) for cell in (reference.normal, reference.clean))
    counts = [_counts(reference, piece) for piece in _pieces(recent, parts)]
    codes = _shown(reference, np.asarray(lab), counts)
    whole = _usage(reference, np.asarray(lab), codes)
    field = tuple(
        _usage(reference, count, codes, piece)
        for count, piece in zip(counts, _pieces(recent, parts), strict=True)
    )
    return FieldAgainstLab(reference.kind, codes, whole, field)


def stored_against_lab(reference: FieldReference, state: Path) -> FieldAgainstLab | None:
    """The same of the monitor that keeps its state in this file."""
    return field_against_lab(reference, stored_recent(state, reference))


def _pieces(recent: Sequence[Seen], parts: int) -> list[Sequence[Seen]]:
    ends = [len(recent) * number // parts for number in range(parts + 1)]
    return [recent[start:end] for start, end in pairwise(ends)]


def _counts(reference: FieldReference, seen: Sequence[Seen]) -> NDArray[np.int64]:
    return np.bincount([one.symbol for one in seen], minlength=reference.symbols)


def _shown(
    reference: FieldReference, lab: NDArray[np.int64], field: Sequence[NDArray[np.int64]]
) -> tuple[int, ...]:
    """Of a large codebook those that are frequent somewhere; in the order of the lab."""
    shares = [
        counts.reshape(reference.size, -1).sum(axis=1) / counts.sum() for counts in (lab, *field)
    ]
    frequent = np.argsort(-np.max(shares, axis=0), kind="stable")[:_SHOWN]
    return tuple(sorted(frequent.tolist(), key=lambda code: (-shares[0][code], code)))


def _usage(
    reference: FieldReference,
    counts: NDArray[np.int64],
    codes: tuple[int, ...],
    seen: Sequence[Seen] = (),
) -> Usage:
    total = int(counts.sum())
    table = counts.reshape(reference.size, reference.bins)
    of_codes = table[list(codes)].sum(axis=1)
    return Usage(
        images=total,
        first=seen[0].time if seen else None,
        last=seen[-1].time if seen else None,
        usage=tuple((of_codes / total).tolist()),
        others=(total - int(of_codes.sum())) / total,
        margins=tuple((table.sum(axis=0) / total).tolist()),
        changed=sum(not one.learned for one in seen),
    )
