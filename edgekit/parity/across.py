"""Compares several artifacts on the same images: each with the reference, and each with each."""

from __future__ import annotations

import string
import time
from dataclasses import dataclass
from typing import Final

from edgekit.bundle.manifest import creation_time
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.foreign.execution import Execution
from edgekit.metrics.corruption_error import choose_baseline, mce
from edgekit.parity.across_document import (
    AcrossDocument,
    Artifact,
    Executed,
    OddOneOut,
    PairAgreement,
)
from edgekit.parity.agreement import Agreements
from edgekit.parity.compare import error_figures
from edgekit.parity.document import ParityOutcome
from edgekit.parity.evaluation import Evaluation, Run
from edgekit.parity.options import ParityOptions
from edgekit.parity.sweep import Lineup
from edgekit.parity.tally import estimate

LETTERS: Final = string.ascii_uppercase


@dataclass(frozen=True)
class Entry:
    """An artifact as it takes part: its name, how images reach it, what computes."""

    name: str
    images: str
    execution: Execution


def run_across(
    lineup: Lineup,
    entries: tuple[Entry, ...],
    options: ParityOptions,
    console: Console,
    *,
    labeled: bool = True,
    reference: int = 0,
) -> AcrossDocument:
    """The document of a sweep of all ``entries``, in the order of the lineup's models.

    The lineup's first model is the reference; ``reference`` is its place on the command line.
    """
    if lineup.available < 2:
        raise UsageError(
            f"{lineup.dataset.name} has {lineup.available} test images, parity needs 2"
        )
    order = _command_line_order(len(entries), reference)
    letters = tuple(LETTERS[place] for place in order)
    cells = lineup.make.cells
    baseline = options.normalize_by or choose_baseline(
        len(lineup.models[0].classes), cells.severities
    )
    start = time.monotonic()
    names = tuple(entry.name for entry in entries)
    run = Run(lineup, options.gates, baseline, console, labeled, 0, names)
    evaluation = run.evaluate(full=options.full)
    agreements = evaluation.agreements
    assert agreements is not None
    first = evaluation.tallies[0]
    figures = [
        error_figures(tally, baseline, judgment)
        for tally, judgment in zip(evaluation.tallies, evaluation.judgments, strict=True)
    ]
    artifacts = [
        Artifact(
            letters[0],
            names[0],
            entries[0].images,
            _executed(entries[0].execution),
            100 * first.clean_error("reference") if labeled else None,
            mce(first.errors("reference"), baseline).value_percent if labeled else None,
            *(None, None, (), ()),
        )
    ]
    for letter, entry, figure, judgment in zip(
        letters[1:], entries[1:], figures, evaluation.judgments, strict=True
    ):
        artifacts.append(
            Artifact(
                letter,
                entry.name,
                entry.images,
                _executed(entry.execution),
                None if figure.clean is None else figure.clean.candidate,
                None if figure.mean is None else figure.mean.candidate,
                figure.mean,
                judgment.outcome,
                tuple(judgment.reasons),
                figure.worst,
            )
        )
    evaluated = first.evaluated // 2 * len(entries)
    return AcrossDocument(
        verdict=_verdict(evaluation),
        reference=letters[0],
        artifacts=tuple(sorted(artifacts, key=lambda one: one.letter)),
        agreement=_pairs(agreements, letters),
        odd_one_out=_odd(agreements, letters, names, stopped=evaluation.stopped),
        data=lineup.dataset.name,
        corrupted=cells.kind,
        corruptions=cells.corruptions,
        severities=cells.severities,
        seed=cells.seed,
        mode="full" if options.full else "stops when decided",
        images=first.images,
        images_available=lineup.available,
        severities_per_image=evaluation.levels,
        saved=1 - evaluated / (len(entries) * lineup.available * lineup.make.count),
        inferences=evaluation.computed,
        inferences_cached=evaluated - evaluation.computed,
        seconds=time.monotonic() - start,
        measured=creation_time(),
        asked=options,
    )


def _command_line_order(count: int, reference: int) -> list[int]:
    """The place on the command line of each model; the reference is the first model."""
    return [reference, *(place for place in range(count) if place != reference)]


def _verdict(evaluation: Evaluation) -> ParityOutcome:
    outcomes = [judgment.outcome for judgment in evaluation.judgments]
    worst: tuple[ParityOutcome, ...] = ("unlabeled", "fail", "undecided")
    return next((outcome for outcome in worst if outcome in outcomes), "pass")


def _executed(execution: Execution) -> Executed:
    nodes = None if execution.nodes is None else dict(execution.nodes)
    return Executed(
        execution.runtime,
        execution.devices,
        nodes,
        execution.asked,
        execution.fell_back,
        execution.describe(),
    )


def _pairs(agreements: Agreements, letters: tuple[str, ...]) -> tuple[PairAgreement, ...]:
    pairs = []
    for place, pair in enumerate(agreements.pairs):
        one, other = sorted(letters[model] for model in pair)
        pairs.append(
            PairAgreement(
                one,
                other,
                clean=estimate(agreements.interval(place, "clean")),
                corrupted=estimate(agreements.interval(place, "corrupted")),
            )
        )
    return tuple(sorted(pairs, key=lambda pair: (pair.one, pair.other)))


def _odd(
    agreements: Agreements, letters: tuple[str, ...], names: tuple[str, ...], *, stopped: bool
) -> OddOneOut:
    if len(names) < 3:
        return OddOneOut(None, None, "none stands out: of two, either may be the odd one")
    found = agreements.odd_one_out(stopped=stopped)
    if found is None:
        return OddOneOut(None, None, "none stands out beyond the intervals")
    letter = letters[found.model]
    return OddOneOut(
        letter,
        found.kind,
        f"{letter} ({names[found.model]}) is the odd one out: on {found.kind} images it agrees "
        "less with every other than any two of the others do",
    )
