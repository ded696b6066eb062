"""Which measurement of a bundle is its evidence: the one place that knows what is stronger.

A measurement is as strong as what it set out to do: nothing of the figures counts, so that
measuring again until they please leads nowhere. Only one made at the same place, and weaker in
nothing, takes the other's place; the rest is kept beside it, dated.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from edgekit.bench.document import BenchDocument, BenchSummary, MeasurementBeside
from edgekit.bench.options import BenchOptions

MOST_BESIDE: Final = 12
"""Measurements that are kept; the weakest go first."""


@dataclass(frozen=True)
class Strength:
    """What a run set out to measure. Weaker in one and stronger in another is not stronger."""

    as_built: bool
    """With the bundle's own batch and threads."""
    scenarios: frozenset[str]
    baselines: frozenset[str]
    """The models that ran in turns with the bundle."""
    seconds: float
    """Of latency and throughput; 0 without either."""
    minutes: float
    """Of sustained load; 0 without."""
    layers: bool

    def at_least(self, other: Strength) -> bool:
        """Whether it is weaker in nothing."""
        return not self.weaknesses(other)

    def weaknesses(self, other: Strength) -> list[str]:
        """In what it is weaker, for people."""
        missing = ", ".join(sorted(other.scenarios - self.scenarios))
        baselines = ", ".join(sorted(other.baselines - self.baselines))
        named = {
            "it has a batch or threads of its own": self.as_built < other.as_built,
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
        """An order of all measurements: whoever is weaker in nothing has no lower rank."""
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
    """Why a measurement does not take the place of the one that stands; None if it may."""
    if _place(new) != _place(standing):
        return f"it was made elsewhere ({new.where}; the other: {standing.where})"
    ours, theirs = strength(new), strength(standing)
    if not ours.as_built and not theirs.as_built and _own_settings(new) != _own_settings(standing):
        return "it has another batch or other threads"
    return "; ".join(ours.weaknesses(theirs)) or None


def settle(
    standing: BenchDocument | None, new: BenchDocument, *, replace: bool = False
) -> tuple[BenchDocument, str | None]:
    """The evidence after another measurement, and why that is not the new one (None if it is).

    ``replace`` puts it in the other's place, however weak; what stood there stays beside it.
    """
    if standing is None:
        return new, None
    looks = standing.looks + 1
    why = None if replace else why_beside(new, standing)
    if why is not None:
        beside = _with(standing.beside, _run(new, why))
        return dataclasses.replace(standing, looks=looks, beside=beside), why
    former = _run(standing, "another measurement took its place")
    own = _run(new, "")
    beside = tuple(run for run in standing.beside if not _same(run, own))
    if not _same(former, own):
        beside = _with(beside, former)
    return dataclasses.replace(new, looks=looks, beside=beside), None


def section(before: BenchSummary | None, document: BenchDocument) -> BenchSummary | None:
    """The manifest's headline figures once a document has become the evidence; None: as before.

    They say what the bundle does as it is, so runs with another batch or other threads leave them
    alone. The build's own comparison stays where the run timed fewer models, or for less long.
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
    """Where it was measured. Not the host's name: containers get another at every start."""
    at = document.conditions
    return document.device, at.machine, at.cores.usable, at.cores.limit


def _own_settings(document: BenchDocument) -> tuple[int | None, int | None]:
    return document.settings.batch, document.settings.threads


def _run(document: BenchDocument, why: str) -> MeasurementBeside:
    """What remains of a measurement beside the evidence."""
    return MeasurementBeside(
        document.measured, why, document.where, document.settings, document.summary()
    )


def _with(
    runs: tuple[MeasurementBeside, ...], run: MeasurementBeside
) -> tuple[MeasurementBeside, ...]:
    """The measurements with one more; a repeated one replaces itself."""
    others = [other for other in runs if not _same(other, run)]
    ordered = sorted([run, *others], key=_rank, reverse=True)
    return tuple(ordered[:MOST_BESIDE])


def _rank(run: MeasurementBeside) -> tuple[float, ...]:
    return _strength(run.settings, run.summary, frozenset(run.settings.scenarios)).rank


def _same(one: MeasurementBeside, other: MeasurementBeside) -> bool:
    return (one.where, one.settings) == (other.where, other.settings)
