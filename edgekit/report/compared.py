"""What `edgekit compare` prints: how two bundles, or two training runs, differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from edgekit.core.documents import Document

Facts = Mapping[tuple[str, str], str]
"""Values by subject and name; the name is empty where a subject is a single fact."""
Subject = Literal["size", "parity", "graph's parity", "bench", "validation"]


@dataclass(frozen=True)
class Difference:
    """A fact that is not the same of both; null of the one that lacks it."""

    subject: str
    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Measured:
    """A figure, with its 95% interval where one was measured."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of both, whether it differs or not; null of the one that lacks it."""

    subject: Subject
    name: str
    unit: str
    a: Measured | None
    b: Measured | None
    difference: float | None
    """B's value less A's."""
    detail: bool = False
    """Whether people see it only with --verbose."""


@dataclass(frozen=True)
class ComparedReport(Document):
    """Two bundles or two training runs; ``a`` and ``b`` are their paths."""

    SCHEMA: ClassVar = 1

    kind: Literal["bundles", "runs"]
    a: Path
    b: Path
    identical: bool
    """Whether everything is the same but when they were made."""
    same_model: bool
    """Whether both must give the same answers: of bundles, all that takes part in running is the
    same; of runs, the best checkpoint or the INT8 graph."""
    differ: tuple[str, ...]
    """The subjects in which they differ, the most important first."""
    differences: tuple[Difference, ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    """Which of the figures may not be compared, and how to compare them."""


def differences(a: Facts, b: Facts) -> tuple[Difference, ...]:
    """The facts that are not the same, in A's order, those of a subject together."""
    keys = dict.fromkeys((*a, *b))
    order = list(dict.fromkeys(subject for subject, _ in keys))
    return tuple(
        Difference(*key, a.get(key), b.get(key))
        for key in sorted(keys, key=lambda key: order.index(key[0]))
        if a.get(key) != b.get(key)
    )


def figure(
    subject: Subject,
    name: str,
    unit: str,
    a: Measured | None,
    b: Measured | None,
    *,
    detail: bool = False,
) -> Figure:
    """A figure with its difference."""
    difference = None if a is None or b is None else b.value - a.value
    return Figure(subject, name, unit, a, b, difference, detail)


def subjects(different: Sequence[Difference], figures: Sequence[Figure]) -> tuple[str, ...]:
    """What differs, each subject once."""
    measured = (one.subject for one in figures if one.difference != 0)
    return tuple(dict.fromkeys((*(one.subject for one in different), *measured)))
