"""Runs a comparison of two models to its verdict and documents the result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from edgekit.bundle.manifest import creation_time
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.metrics.corruption_error import Baseline, choose_baseline, mce, relative_mce
from edgekit.parity.changes import Changes
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
from edgekit.parity.evaluation import Run
from edgekit.parity.gates import Judgment, worst
from edgekit.parity.options import ParityOptions
from edgekit.parity.predictors import same_source
from edgekit.parity.sweep import Sweep
from edgekit.parity.tally import Tally, estimate

_MODELS = ("reference", "candidate")


class Comparison(NamedTuple):
    """The result, and what is needed to look at the images whose answers changed."""

    document: ParityDocument
    changes: Changes
    sweep: Sweep


def run_comparison(
    sweep: Sweep,
    options: ParityOptions,
    console: Console,
    *,
    labeled: bool = True,
    codebook_size: int = 0,
    device: str | None = None,
    worst: int = 0,
) -> Comparison:
    """Compare the two models of a sweep; docs/parity.md describes the document.

    ``codebook_size`` is the candidate's, 0 without a codebook; ``device`` is where it runs;
    ``worst`` is the number of changed answers to keep, to be looked at.
    """
    cells, gates = sweep.make.cells, options.gates
    baseline = options.normalize_by or choose_baseline(
        len(sweep.candidate.classes), cells.severities
    )
    same = same_source(sweep.reference, sweep.candidate)
    available = sweep.available
    if available < 2:
        images = "1 test image" if available == 1 else "no test images"
        raise UsageError(f"{sweep.dataset.name} has {images}, parity needs 2")
    start, before = time.monotonic(), _cpu_seconds(sweep)
    size = codebook_size if same else 0
    run = Run(sweep.lineup, gates, baseline, console, labeled, size, worst=worst)
    try:
        evaluation = run.evaluate(full=options.full)
    except EnginesDiffer as error:
        # The quick engine's answers so far no longer count, here or in later runs.
        console.warn(f"{error}; parity starts again with '{error.trusted.name}' alone")
        with sweep.hold() as shelves:
            shelves[sweep.reference.key].clear()
        trusting = dataclasses.replace(sweep, reference=error.trusted).lineup
        evaluation = dataclasses.replace(run, lineup=trusting).evaluate(full=options.full)
    (tally,), (judgment,) = evaluation.tallies, evaluation.judgments
    (changes,) = evaluation.changes
    errors = error_figures(tally, baseline, judgment)
    document = ParityDocument(
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
        cpu_seconds=_cpu_seconds(sweep) - before,
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
        closeness=tally.closeness.result(),
        top5_error=tally.top_five.result(),
        budgets=judgment.budgets,
    )
    return Comparison(document, changes, sweep)


def _cpu_seconds(sweep: Sweep) -> float:
    """Processor time so far of this process and its workers, also of those on other machines."""
    times = os.times()
    here = times.user + times.system + times.children_user + times.children_system
    return here + sweep.executor.cpu_seconds


def _engine(sweep: Sweep) -> EngineReport | None:
    """The engine that answered for the reference, where there was a choice."""
    reference = sweep.reference
    return reference.report if isinstance(reference, CheckedPredictor) else None


class ErrorFigures(NamedTuple):
    """The part of the document that needs labels; empty without them."""

    clean: OfBoth | None = None
    mean: MeanError | None = None
    relative: RelativeError | None = None
    per_corruption: Mapping[str, CorruptionChange] | None = None
    worst: tuple[str, ...] = ()


def error_figures(tally: Tally, baseline: Baseline, judgment: Judgment) -> ErrorFigures:
    """Both models' errors, and how sure their difference is."""
    interval, deltas = judgment.interval, judgment.deltas
    if interval is None or judgment.fixed is None or deltas is None:
        return ErrorFigures()
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

    return ErrorFigures(
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
