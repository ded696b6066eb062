"""Runs a comparison to its verdict and writes down what was found.

By default the run looks after every block and stops when an anytime-valid interval decides;
``full`` goes through all images and uses the interval of a fixed sample size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.console import Console
from edgekit.errors import UsageError
from edgekit.parity.metrics import Baseline, choose_baseline, mce, relative_mce
from edgekit.parity.sequential import (
    SequentialDelta,
    fewest_images_to_pass,
    score_bound,
    sequential_scores,
)
from edgekit.parity.stats import (
    CorruptionDeltas,
    GateResult,
    Interval,
    Outcome,
    PairedErrors,
    cell_weights,
    code_agreement_gate,
    corruption_deltas,
    corruption_gate,
    delta_interval,
    overall_outcome,
    verdict,
)
from edgekit.parity.sweep import Sweep
from edgekit.parity.tally import Tally

SCHEMA = 1


@dataclass(frozen=True)
class Gates:
    """What must hold for a pass; the first always, the others where they are given."""

    tolerance: float = 0.5  # points of mean corruption error
    min_code_agreement: float | None = None  # a fraction
    max_corruption_delta: float | None = None  # points, for every single corruption


def run_comparison(
    sweep: Sweep,
    gates: Gates,
    console: Console,
    *,
    labeled: bool = True,
    full: bool = False,
    codebook_size: int = 0,
) -> dict[str, Any]:
    """The parity document of a sweep; its ``verdict`` is pass, fail, undecided or unlabeled."""
    cells = sweep.make.cells
    baseline = choose_baseline(len(sweep.reference.classes), cells.severities)
    weights = cell_weights(cells.corruptions, cells.severities, baseline)
    bound = score_bound(weights)
    available = min(len(sweep.dataset), sweep.images or len(sweep.dataset))
    if available < 2:
        raise UsageError(f"{sweep.dataset.name} has {available} test images: parity needs more")
    _warn_if_hopeless(console, gates.tolerance, bound, available, full=full or not labeled)
    sequence = SequentialDelta(gates.tolerance, bound=bound)
    tally = Tally(cells, labeled, codebook_size)
    start = time.monotonic()
    blocks = sweep.blocks()
    total = -(-available // sweep.block_size())
    title = f"parity ({sweep.block_size()} images x {1 + cells.count} variants a block)"
    for block in console.track(blocks, total, title):
        state = sequence.update(sequential_scores(tally.add(block), weights))
        if labeled:
            console.detail(
                f"{state.images} images: difference {state.estimate:+.2f} points "
                f"[{state.lower:+.2f}, {state.upper:+.2f}]"
            )
        if labeled and not full and state.decided:
            break
    blocks.close()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "seen": sweep.reference.seen,
        "reference": sweep.reference.name,
        "candidate": sweep.candidate.name,
        "data": sweep.dataset.name,
        "corrupted": cells.kind,
        "corruptions": list(cells.corruptions),
        "severities": list(cells.severities),
        "images": tally.images,
        "images_available": available,
        "saved": 1 - tally.images / available,
        "inferences": tally.computed,
        "seconds": time.monotonic() - start,
        "tolerance": gates.tolerance,
        "mode": "full" if full else "stops when decided",
        **tally.agreement(),
    }
    if not labeled:
        return {**document, "verdict": "unlabeled", "clean_error": None, "corruption_error": None}
    return {**document, **_errors(tally, gates, baseline, sequence, full=full)}


def _errors(
    tally: Tally, gates: Gates, baseline: Baseline, sequence: SequentialDelta, *, full: bool
) -> dict[str, Any]:
    """The part of the document that needs labels: errors, intervals, verdict."""
    cells = tally.cells
    paired = PairedErrors(tally.differences(), cells.corruptions, cells.severities, baseline)
    fixed = delta_interval(paired)
    deltas = corruption_deltas(paired)
    state = sequence.state()
    if full:
        judged = verdict(fixed, gates.tolerance)
        outcome, interval, more = judged.outcome, fixed, judged.more_images
    else:
        outcome, more = state.outcome, sequence.more_images()
        interval = Interval(state.estimate, state.lower, state.upper, state.images)
    extra = _gate_results(gates, deltas, tally.code_interval())
    whole = overall_outcome(outcome, *(gate.outcome for gate in extra))
    means = {who: mce(tally.errors(who), baseline) for who in ("reference", "candidate")}
    relative = {
        who: relative_mce(tally.errors(who), tally.clean_error(who), baseline).value_percent
        for who in ("reference", "candidate")
    }
    return {
        "verdict": whole,
        "reasons": _reasons(outcome, interval, gates.tolerance, more, full=full)
        + [reason for gate in extra for reason in gate.reasons],
        "more_images": more,
        "clean_error": {who: 100 * tally.clean_error(who) for who in means},
        "corruption_error": {
            **{who: mean.value_percent for who, mean in means.items()},
            "label": means["reference"].label,
            "baseline": baseline,
            "delta": interval.estimate,
            "lower": interval.lower,
            "upper": interval.upper,
            "fixed_sample": {"lower": fixed.lower, "upper": fixed.upper},
        },
        "relative_corruption_error": relative,
        "per_corruption": {
            name: {
                **{who: mean.per_corruption[name] for who, mean in means.items()},
                "delta": deltas.intervals[name].estimate,
                "lower": deltas.intervals[name].lower,
                "upper": deltas.intervals[name].upper,
                "errors": {who: _percent(tally.errors(who)[name]) for who in means},
            }
            for name in cells.corruptions
        },
        "worst": deltas.worst()[:3],
    }


def _gate_results(
    gates: Gates, deltas: CorruptionDeltas, agreement: Interval | None
) -> list[GateResult]:
    results = []
    if gates.max_corruption_delta is not None:
        results.append(corruption_gate(deltas, gates.max_corruption_delta))
    if gates.min_code_agreement is not None:
        if agreement is None:
            raise UsageError("the model has no codebook: drop --min-code-agreement")
        results.append(code_agreement_gate(agreement, gates.min_code_agreement))
    return results


def _reasons(
    outcome: Outcome, interval: Interval, tolerance: float, more: int | None, *, full: bool
) -> list[str]:
    text = (
        f"{outcome}: difference {interval.estimate:+.2f} points, 95% interval "
        f"[{interval.lower:+.2f}, {interval.upper:+.2f}], tolerance {tolerance:g}"
    )
    if outcome == "undecided":
        number = "no number of" if more is None else f"about {more:,}"
        text += f"; {number} more images like these would decide"
        if not full:
            text += " (--full judges all images at once, with a shorter interval)"
    return [text]


def _warn_if_hopeless(
    console: Console, tolerance: float, bound: float, images: int, *, full: bool
) -> None:
    if full or not 0 < tolerance < bound:
        return
    needed = fewest_images_to_pass(tolerance, bound)
    if images < needed:
        console.warn(
            f"{images} test images cannot show a loss of at most {tolerance:g} points, even by "
            f"identical answers ({needed} could): add images, or raise the tolerance"
        )


def _percent(errors: Any) -> list[float]:
    return [100 * float(value) for value in np.asarray(list(errors.values()))]
