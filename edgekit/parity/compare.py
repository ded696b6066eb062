"""Runs a comparison to its verdict and writes down what was found.

By default the run stops as soon as the verdict is certain, however often it looked; ``full`` goes
through all images and uses the interval of a fixed sample size.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from typing import Any, cast

from edgekit.console import Console
from edgekit.errors import UsageError
from edgekit.parity.judge import Gates, Judge, Judgment, worst
from edgekit.parity.metrics import Baseline, choose_baseline, mce, relative_mce
from edgekit.parity.predictors import same_source
from edgekit.parity.stats import CorruptionDeltas
from edgekit.parity.sweep import ImagePair, Sweep
from edgekit.parity.tally import Tally, plain

SCHEMA = 1
_MODELS = ("reference", "candidate")


def run_comparison(
    sweep: Sweep,
    gates: Gates,
    console: Console,
    *,
    labeled: bool = True,
    full: bool = False,
    codebook_size: int = 0,
    baseline: Baseline | None = None,
) -> dict[str, Any]:
    """The parity document of a sweep (docs/parity.md says what is in it).

    ``codebook_size`` is the candidate's, 0 without a codebook; ``baseline`` None chooses by the
    number of classes and the severities.
    """
    cells = sweep.make.cells
    chosen = baseline or choose_baseline(len(sweep.candidate.classes), cells.severities)
    same = same_source(sweep.reference, sweep.candidate)
    size = codebook_size if same else 0
    available = sweep.available
    if available < 2:
        raise UsageError(f"{sweep.dataset.name} has {available} test images: parity needs more")
    judge = Judge(gates, cells, chosen, labeled=labeled, coded=size > 0)
    tally = Tally(cells, labeled=labeled, codebook_size=size)
    start, busy = time.monotonic(), os.times()
    title = f"parity, {sweep.make.count} variants an image"
    pairs = cast("Generator[ImagePair, None, None]", sweep.pairs())
    # Closed whatever happens: an open one would leave its worker processes until it is collected.
    with contextlib.closing(pairs):
        for pair in console.track(pairs, available, title, note=judge.running):
            judge.add(tally.add(pair))
            if not full and judge.decided:
                break
    judged = judge.judge(tally, full=full)
    used = os.times()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": judged.outcome,
        "reasons": judged.reasons,
        "more_images": judged.more_images,
        "seen": sweep.reference.seen,
        "reference": sweep.reference.name,
        "candidate": sweep.candidate.name,
        "same_source": same,
        "data": sweep.dataset.name,
        "corrupted": cells.kind,
        "corruptions": list(cells.corruptions),
        "severities": list(cells.severities),
        "seed": cells.seed,
        "mode": "full" if full else "stops when decided",
        "gates": {
            "tolerance": gates.tolerance,
            "min_code_agreement": gates.min_code_agreement,
            "max_corruption_delta": gates.max_corruption_delta,
        },
        "images": tally.images,
        "images_available": available,
        "saved": 1 - tally.images / available,
        "inferences": tally.computed,
        "inferences_cached": 2 * tally.images * sweep.make.count - tally.computed,
        "seconds": time.monotonic() - start,
        "cpu_seconds": (used.user + used.system + used.children_user + used.children_system)
        - (busy.user + busy.system + busy.children_user + busy.children_system),
        **tally.agreement(),
    }
    if judged.interval is None or judged.fixed is None or judged.deltas is None:
        return {**document, **dict.fromkeys(_NEED_LABELS), "worst": []}
    return {**document, **_errors(tally, chosen, judged, judged.deltas)}


_NEED_LABELS = (
    "clean_error",
    "corruption_error",
    "relative_corruption_error",
    "per_corruption",
)


def _errors(
    tally: Tally, baseline: Baseline, judged: Judgment, deltas: CorruptionDeltas
) -> dict[str, Any]:
    """The part of the document that needs labels."""
    assert judged.interval is not None
    assert judged.fixed is not None
    errors = {who: tally.errors(who) for who in _MODELS}
    clean = {who: tally.clean_error(who) for who in _MODELS}
    means = {who: mce(errors[who], baseline) for who in _MODELS}
    relative = {who: relative_mce(errors[who], clean[who], baseline) for who in _MODELS}
    return {
        "clean_error": {who: 100 * clean[who] for who in _MODELS},
        "corruption_error": {
            **{who: mean.value_percent for who, mean in means.items()},
            "label": means["reference"].label,
            "baseline": baseline,
            "delta": judged.interval.estimate,
            "lower": judged.interval.lower,
            "upper": judged.interval.upper,
            "interval": "anytime" if judged.anytime else "fixed sample",
            "fixed_sample": plain(judged.fixed),
        },
        "relative_corruption_error": {
            **{who: mean.value_percent for who, mean in relative.items()},
            "label": relative["reference"].label,
        },
        "per_corruption": {
            name: {
                **{who: mean.per_corruption[name] for who, mean in means.items()},
                "delta": deltas.intervals[name].estimate,
                "lower": deltas.intervals[name].lower,
                "upper": deltas.intervals[name].upper,
                "averaged": name in means["reference"].averaged,
                "errors": {who: [100 * e for e in errors[who][name].values()] for who in _MODELS},
            }
            for name in tally.cells.corruptions
        },
        "worst": list(worst(deltas)),
    }
