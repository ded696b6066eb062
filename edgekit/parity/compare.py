"""Runs a comparison to its verdict and writes down what was found.

By default each image goes through two of five severities of every corruption, drawn at random, and
the run stops as soon as the verdict is certain, however often it looked. If the images run out and
do not decide, and with ``full``, all images go through everything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from edgekit.bundle.manifest import creation_time
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.progress import track
from edgekit.metrics.corruption_error import Baseline, choose_baseline, mce, relative_mce
from edgekit.parity.document import (
    CorruptionChange,
    EngineReport,
    ErrorsBySeverity,
    MeanError,
    OfBoth,
    ParityDocument,
    RelativeError,
)
from edgekit.parity.engines import CheckedPredictor, EnginesDiffer
from edgekit.parity.gates import SAMPLE_CONFIDENCE, Judge, Judgment, worst
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.predictors import same_source
from edgekit.parity.sweep import ImagePair, Sweep
from edgekit.parity.tally import Tally, estimate

_SAMPLED = 0.4  # of the severities: what an image goes through at first
_MODELS = ("reference", "candidate")


def run_comparison(
    sweep: Sweep,
    options: ParityOptions,
    console: Console,
    *,
    labeled: bool = True,
    codebook_size: int = 0,
    device: str | None = None,
) -> ParityDocument:
    """The parity document of a sweep (docs/parity.md says what is in it).

    ``codebook_size`` is the candidate's, 0 without a codebook; ``device`` is where it answers.
    """
    cells, gates = sweep.make.cells, options.gates
    baseline = options.baseline or choose_baseline(len(sweep.candidate.classes), cells.severities)
    same = same_source(sweep.reference, sweep.candidate)
    available = sweep.available
    if available < 2:
        raise UsageError(f"{sweep.dataset.name} has {available} test images: parity needs more")
    start, before = time.monotonic(), os.times()
    run = _Run(sweep, gates, baseline, console, labeled, codebook_size if same else 0)
    try:
        looked = run.whole(full=options.full)
    except EnginesDiffer as error:
        # What the quick engine has said so far counts no more, here or in later runs.
        console.warn(f"{error}; parity starts again with '{error.trusted.name}' alone")
        with sweep.hold() as (reference, _):
            reference.clear()
        trusting = dataclasses.replace(sweep, reference=error.trusted)
        looked = dataclasses.replace(run, sweep=trusting).whole(full=options.full)
    tally, judged = looked.tally, looked.judged
    errors = _errors(tally, baseline, judged)
    return ParityDocument(
        verdict=judged.outcome,
        reasons=tuple(judged.reasons),
        more_images=judged.more_images,
        seen=sweep.reference.seen,
        reference=sweep.reference.name,
        reference_engine=_engine(sweep),
        candidate=sweep.candidate.name,
        same_source=same,
        data=sweep.dataset.name,
        corrupted=cells.kind,
        corruptions=cells.corruptions,
        severities=cells.severities,
        seed=cells.seed,
        mode="full" if options.full else "stops when decided",
        gates=gates,
        images=tally.images,
        images_available=available,
        severities_per_image=looked.levels,
        saved=1 - tally.evaluated / (2 * available * sweep.make.count),
        inferences=looked.computed,
        inferences_cached=tally.evaluated - looked.computed,
        seconds=time.monotonic() - start,
        cpu_seconds=_cpu_seconds(os.times()) - _cpu_seconds(before),
        clean_error=errors.clean,
        corruption_error=errors.mean,
        relative_corruption_error=errors.relative,
        worst=errors.worst,
        asked=options,
        top1_agreement=tally.classes(),
        kl_nats=tally.divergence(),
        codes=tally.codes(),
        per_corruption=errors.per_corruption,
        measured=creation_time(),
        device=device,
    )


def _cpu_seconds(times: os.times_result) -> float:
    """Of this process and its workers."""
    return times.user + times.system + times.children_user + times.children_system


def _engine(sweep: Sweep) -> EngineReport | None:
    """Which engine answered for the reference, where there was a choice."""
    reference = sweep.reference
    return reference.report if isinstance(reference, CheckedPredictor) else None


@dataclass(frozen=True)
class _Looked:
    """What a comparison looked at before it ended."""

    tally: Tally
    judged: Judgment
    levels: int  # severities of a corruption that an image went through
    computed: int  # inferences


@dataclass(frozen=True)
class _Run:
    """Looks at images until the verdict is certain."""

    sweep: Sweep
    gates: Gates
    baseline: Baseline
    console: Console
    labeled: bool
    codebook_size: int

    def whole(self, *, full: bool) -> _Looked:
        """All cells of all images where ``full``, else as much as the verdict takes."""
        with self.sweep.hold():
            return self.all_cells(stops=False) if full or not self.judge().gated else self.go()

    def judge(self) -> Judge:
        """One that has seen nothing yet."""
        return Judge(
            self.gates,
            self.sweep.make.cells,
            self.baseline,
            labeled=self.labeled,
            coded=self.codebook_size > 0,
        )

    def go(self) -> _Looked:
        """First a sample of each image's cells; if that does not decide, all of all.

        An image tells most in its first few cells. What was computed for the sample is kept, so
        going on costs only the other cells.
        """
        levels = max(1, int(_SAMPLED * self._every))
        if levels == self._every:
            return self.all_cells(stops=True)
        tally, judge = self._look(levels, stops=True)
        if tally.complete:
            judged = judge.judge(tally, full=False, confidence=SAMPLE_CONFIDENCE)
            if judged.outcome in ("pass", "fail"):
                return _Looked(tally, judged, levels, tally.computed)
        self.console.info("parity: the sample does not decide; going through all severities")
        return self.all_cells(stops=False, computed=tally.computed)

    def all_cells(self, *, stops: bool, computed: int = 0) -> _Looked:
        """All cells of every image that is looked at; ``computed`` inferences went before."""
        tally, judge = self._look(self._every, stops=stops)
        judged = judge.judge(tally, full=not stops)
        return _Looked(tally, judged, self._every, computed + tally.computed)

    @property
    def _every(self) -> int:
        return len(self.sweep.make.cells.severities)

    def _look(self, levels: int, *, stops: bool) -> tuple[Tally, Judge]:
        """Image after image, until the gates are decided where it ``stops`` for that."""
        cells, total = self.sweep.make.cells, self.sweep.available
        judge = self.judge()
        tally = Tally(cells, labeled=self.labeled, codebook_size=self.codebook_size)
        title = f"parity, {1 + levels * len(cells.corruptions)} variants an image"
        pairs = cast("Generator[ImagePair, None, None]", self.sweep.pairs(levels))
        # Closed whatever happens: an open one would leave its workers until it is collected.
        with contextlib.closing(pairs):
            for pair in track(self.console, pairs, total, title, note=judge.running):
                judge.add(tally.add(pair))
                if stops and judge.decided and tally.complete:
                    break
        return tally, judge


class _Errors(NamedTuple):
    """The part of the document that needs labels; empty without."""

    clean: OfBoth | None = None
    mean: MeanError | None = None
    relative: RelativeError | None = None
    per_corruption: Mapping[str, CorruptionChange] | None = None
    worst: tuple[str, ...] = ()


def _errors(tally: Tally, baseline: Baseline, judged: Judgment) -> _Errors:
    interval, deltas = judged.interval, judged.deltas
    if interval is None or judged.fixed is None or deltas is None:
        return _Errors()
    errors = {who: tally.errors(who) for who in _MODELS}
    clean = {who: tally.clean_error(who) for who in _MODELS}
    means = {who: mce(errors[who], baseline) for who in _MODELS}
    relative = {who: relative_mce(errors[who], clean[who], baseline) for who in _MODELS}

    def change(name: str) -> CorruptionChange:
        by_severity = {
            who: tuple(100 * error for error in errors[who][name].values()) for who in _MODELS
        }
        delta = deltas.intervals[name]
        return CorruptionChange(
            **{who: means[who].per_corruption[name] for who in _MODELS},
            delta=delta.estimate,
            lower=delta.lower,
            upper=delta.upper,
            averaged=name in means["reference"].averaged,
            errors=ErrorsBySeverity(**by_severity),
        )

    return _Errors(
        clean=OfBoth(**{who: 100 * clean[who] for who in _MODELS}),
        mean=MeanError(
            **{who: means[who].value_percent for who in _MODELS},
            label=means["reference"].label,
            baseline=baseline,
            delta=interval.estimate,
            lower=interval.lower,
            upper=interval.upper,
            interval="anytime" if judged.anytime else "fixed sample",
            confidence=judged.confidence,
            fixed_sample=estimate(judged.fixed),
        ),
        relative=RelativeError(
            **{who: relative[who].value_percent for who in _MODELS},
            label=relative["reference"].label,
        ),
        per_corruption={name: change(name) for name in tally.cells.corruptions},
        worst=tuple(worst(deltas)),
    )
