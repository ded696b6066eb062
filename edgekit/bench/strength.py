"""Decides which measurement of a bundle is its evidence: the one place that ranks them.

A measurement is as strong as what it set out to measure, whatever the figures: repeating it until
they please achieves nothing. A new one replaces the evidence only if it was made in the same place
and is weaker in no respect; all others are kept beside the evidence, dated.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from edgekit.bench.document import BenchDocument, BenchSummary, MeasurementBeside
from edgekit.bench.options import BenchOptions

MOST_BESIDE: Final = 12
"""Measurements kept at most; the weakest are dropped first."""


@dataclass(frozen=True)
class Strength:
    """What a run set out to measure. Weaker in one respect is not stronger."""

    as_built: bool
    """With the bundle's own batch and threads."""
    scenarios: frozenset[str]
    baselines: frozenset[str]
    """The models that took turns with the bundle."""
    seconds: float
    """Time for latency and for throughput; 0 without either."""
    minutes: float
    """Time under sustained load; 0 without it."""
    layers: bool

    def at_least(self, other: Strength) -> bool:
        """Whether it is weaker in no respect."""
        return not self.weaknesses(other)

    def weaknesses(self, other: Strength) -> list[str]:
        """In what respects it is weaker, in words."""
        missing = ", ".join(sorted(other.scenarios - self.scenarios))
        baselines = ", ".join(sorted(other.baselines - self.baselines))
        named = {
            "its batch or threads are not the bundle's own": self.as_built < other.as_built,
            f"it leaves out {missing}": bool(missing),
            f"it leaves out the baselines ({baselines})": bool(baselines),
            f"it took {self.seconds:g} s, not {other.seconds:g}": self.seconds < other.seconds,
            f"it took {self.minutes:g} min of sustained load, not {other.minutes:g}": (
                self.minutes < other.minutes
            ),
            "it leaves out the layers": self.layers < other.layers,
        }
        return [words for words, weaker in named.items() if weaker]

    @property
    def rank(self) -> tuple[float, ...]:
        """A total order: one that is weaker in no respect never ranks lower."""
        return (
            self.as_built,
            len(self.scenarios),
            len(self.baselines),
            self.seconds,
            self.minutes,
            self.layers,
        )


def strength(document: BenchDocument) -> Strength:
    """How strong a measurement is."""
    return _strength(document.settings, document.summary(), document.scenarios.measured())


def why_beside(new: BenchDocument, standing: BenchDocument) -> str | None:
    """Why a measurement does not replace the standing one; None if it may."""
    if _place(new) != _place(standing):
        return f"it was made elsewhere ({new.where}; the other: {standing.where})"
    ours, theirs = strength(new), strength(standing)
    if not ours.as_built and not theirs.as_built and _own_settings(new) != _own_settings(standing):
        return "its batch or threads differ"
    return "; ".join(ours.weaknesses(theirs)) or None


def settle(
    standing: BenchDocument | None, new: BenchDocument, *, replace: bool = False
) -> tuple[BenchDocument, str | None]:
    """The evidence after a new measurement, and why it is not that one (None if it is).

    ``replace`` makes it the evidence, however weak; the former evidence is kept beside it.
    """
    if standing is None:
        return new, None
    looks = standing.looks + 1
    why = None if replace else why_beside(new, standing)
    if why is not None:
        beside = _with(standing.beside, _run(new, why))
        return dataclasses.replace(standing, looks=looks, beside=beside), why
    former = _run(standing, "another measurement replaced it")
    own = _run(new, "")
    beside = tuple(run for run in standing.beside if not _same(run, own))
    if not _same(former, own):
        beside = _with(beside, former)
    return dataclasses.replace(new, looks=looks, beside=beside), None


def section(before: BenchSummary | None, document: BenchDocument) -> BenchSummary | None:
    """The manifest's headline figures once a document has become the evidence; None: unchanged.

    They describe the bundle as built, so runs with another batch or other threads leave them
    alone. The build's own comparison stays if the run timed fewer models, or timed them shorter.
    """
    if not strength(document).as_built:
        return None
    new = document.summary()
    if before is None or before.device != new.device:
        return new if before is None else None
    figures = {field.name: getattr(new, field.name) for field in dataclasses.fields(new)}
    shorter = (new.turns or 0) < (before.turns or 0)
    if before.latencies and (shorter or not set(before.ratios or {}) <= set(new.ratios or {})):
        for name in _OF_LATENCY:
            figures[name] = getattr(before, name)
    measured = {name: value for name, value in figures.items() if value is not None}
    return dataclasses.replace(before, **measured)


_OF_LATENCY: Final = (
    *("batch", "runtime", "cores", "candidate", "latencies", "ratios", "turns"),
    *("warmup_calls", "drift"),
)


def _strength(settings: BenchOptions, summary: BenchSummary, scenarios: frozenset[str]) -> Strength:
    return Strength(
        as_built=settings.batch is None and settings.threads is None,
        scenarios=scenarios,
        baselines=frozenset(summary.ratios or {}),
        seconds=settings.seconds if scenarios & {"latency", "throughput"} else 0.0,
        minutes=settings.minutes if "sustained" in scenarios else 0.0,
        layers=settings.layers,
    )


def _place(document: BenchDocument) -> tuple[object, ...]:
    """Where it was measured. Not the host's name: containers get a new one at every start."""
    at = document.conditions
    return document.device, at.machine, at.cores.usable, at.cores.limit


def _own_settings(document: BenchDocument) -> tuple[int | None, int | None]:
    return document.settings.batch, document.settings.threads


def _run(document: BenchDocument, why: str) -> MeasurementBeside:
    """The part of a measurement that is kept beside the evidence."""
    return MeasurementBeside(
        document.measured, why, document.where, document.settings, document.summary()
    )


def _with(
    runs: tuple[MeasurementBeside, ...], run: MeasurementBeside
) -> tuple[MeasurementBeside, ...]:
    """The measurements with one added; a repeated one replaces its predecessor."""
    others = [other for other in runs if not _same(other, run)]
    ordered = sorted([run, *others], key=_rank, reverse=True)
    return tuple(ordered[:MOST_BESIDE])


def _rank(run: MeasurementBeside) -> tuple[float, ...]:
    return _strength(run.settings, run.summary, frozenset(run.settings.scenarios)).rank


def _same(one: MeasurementBeside, other: MeasurementBeside) -> bool:
    return (one.where, one.settings) == (other.where, other.settings)
