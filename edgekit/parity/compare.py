"""Runs a comparison to its verdict and documents the result.

By default each image goes through two of five severities of every corruption, drawn at random, and
the run stops as soon as the verdict is certain. If the images run out without deciding, or with
``full``, all images go through everything.
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
from edgekit.parity.gates import SAMPLE_CONFIDENCE, GateTracker, Judgment, worst
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.predictors import same_source
from edgekit.parity.sweep import ImagePair, Sweep
from edgekit.parity.tally import Tally, estimate

_SAMPLED = 0.4  # of the severities: the share that an image goes through at first
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
    """The parity document of a sweep (described in docs/parity.md).

    ``codebook_size`` is the candidate's, 0 without a codebook; ``device`` is where it runs.
    """
    cells, gates = sweep.make.cells, options.gates
    baseline = options.normalize_by or choose_baseline(
        len(sweep.candidate.classes), cells.severities
    )
    same = same_source(sweep.reference, sweep.candidate)
    available = sweep.available
    if available < 2:
        raise UsageError(f"{sweep.dataset.name} has {available} test images, parity needs 2")
    start, before = time.monotonic(), os.times()
    run = _Run(sweep, gates, baseline, console, labeled, codebook_size if same else 0)
    try:
        evaluation = run.evaluate(full=options.full)
    except EnginesDiffer as error:
        # The quick engine's answers so far no longer count, here or in later runs.
        console.warn(f"{error}; parity starts again with '{error.trusted.name}' alone")
        with sweep.hold() as (reference, _):
            reference.clear()
        trusting = dataclasses.replace(sweep, reference=error.trusted)
        evaluation = dataclasses.replace(run, sweep=trusting).evaluate(full=options.full)
    tally, judgment = evaluation.tally, evaluation.judgment
    errors = _errors(tally, baseline, judgment)
    return ParityDocument(
        verdict=judgment.outcome,
        reasons=tuple(judgment.reasons),
        more_images=judgment.more_images,
        seen=sweep.reference.training,
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
        severities_per_image=evaluation.levels,
        saved=1 - tally.evaluated / (2 * available * sweep.make.count),
        inferences=evaluation.computed,
        inferences_cached=tally.evaluated - evaluation.computed,
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
        budgets=judgment.budgets,
    )


def _cpu_seconds(times: os.times_result) -> float:
    """Processor time of this process and its workers."""
    return times.user + times.system + times.children_user + times.children_system


def _engine(sweep: Sweep) -> EngineReport | None:
    """The engine that answered for the reference, where there was a choice."""
    reference = sweep.reference
    return reference.report if isinstance(reference, CheckedPredictor) else None


@dataclass(frozen=True)
class _Evaluation:
    """What a comparison had evaluated when it ended."""

    tally: Tally
    judgment: Judgment
    levels: int  # severities of a corruption that an image went through
    computed: int  # inferences


@dataclass(frozen=True)
class _Run:
    """Evaluates images until the verdict is certain."""

    sweep: Sweep
    gates: Gates
    baseline: Baseline
    console: Console
    labeled: bool
    codebook_size: int

    def evaluate(self, *, full: bool) -> _Evaluation:
        """All cells of all images if ``full``, else as many as the verdict needs."""
        with self.sweep.hold():
            if full or not self.gate_tracker().gated:
                return self.all_cells(stops=False)
            return self.sample_first()

    def gate_tracker(self) -> GateTracker:
        """A new one, without images."""
        return GateTracker(
            self.gates,
            self.sweep.make.cells,
            self.baseline,
            labeled=self.labeled,
            coded=self.codebook_size > 0,
        )

    def sample_first(self) -> _Evaluation:
        """First a sample of each image's cells; if that does not decide, all cells.

        An image's first few cells are the most informative. Their answers are cached, so going on
        costs only the other cells.
        """
        levels = max(1, int(_SAMPLED * self._all_levels))
        if levels == self._all_levels:
            return self.all_cells(stops=True)
        tally, tracker = self._evaluate(levels, stops=True)
        if tally.complete:
            judgment = tracker.judgment(tally, full=False, confidence=SAMPLE_CONFIDENCE)
            if judgment.outcome in ("pass", "fail"):
                return _Evaluation(tally, judgment, levels, tally.computed)
        self.console.info("parity: the sample does not decide; evaluating all severities")
        return self.all_cells(stops=False, computed=tally.computed)

    def all_cells(self, *, stops: bool, computed: int = 0) -> _Evaluation:
        """All cells of every evaluated image; ``computed`` counts the inferences made before."""
        tally, tracker = self._evaluate(self._all_levels, stops=stops)
        judgment = tracker.judgment(tally, full=not stops)
        return _Evaluation(tally, judgment, self._all_levels, computed + tally.computed)

    @property
    def _all_levels(self) -> int:
        return len(self.sweep.make.cells.severities)

    def _evaluate(self, levels: int, *, stops: bool) -> tuple[Tally, GateTracker]:
        """Image after image, until the gates are decided (if ``stops``) or none are left."""
        cells, total = self.sweep.make.cells, self.sweep.available
        tracker = self.gate_tracker()
        tally = Tally(cells, labeled=self.labeled, codebook_size=self.codebook_size)
        title = f"parity, {1 + levels * len(cells.corruptions)} variants per image"
        pairs = cast("Generator[ImagePair, None, None]", self.sweep.pairs(levels))
        # Always closed: an open one would leave its workers running until it is collected.
        with contextlib.closing(pairs):
            for pair in track(self.console, pairs, total, title, note=tracker.running):
                tracker.add(tally.add(pair))
                if stops and tracker.decided and tally.complete:
                    break
        return tally, tracker


class _Errors(NamedTuple):
    """The part of the document that needs labels; empty without them."""

    clean: OfBoth | None = None
    mean: MeanError | None = None
    relative: RelativeError | None = None
    per_corruption: Mapping[str, CorruptionChange] | None = None
    worst: tuple[str, ...] = ()


def _errors(tally: Tally, baseline: Baseline, judgment: Judgment) -> _Errors:
    interval, deltas = judgment.interval, judgment.deltas
    if interval is None or judgment.fixed is None or deltas is None:
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
            interval="anytime" if judgment.anytime else "fixed sample",
            confidence=judgment.confidence,
            fixed_sample=estimate(judgment.fixed),
        ),
        relative=RelativeError(
            **{who: relative[who].value_percent for who in _MODELS},
            label=relative["reference"].label,
        ),
        per_corruption={name: change(name) for name in tally.cells.corruptions},
        worst=tuple(worst(deltas)),
    )
