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
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, cast

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.metrics.corruption_error import Baseline, choose_baseline, mce, relative_mce
from edgekit.metrics.intervals import CorruptionDeltas
from edgekit.parity.engines import CheckedPredictor, EngineReport, EnginesDiffer
from edgekit.parity.gates import SAMPLE_CONFIDENCE, Gates, Judge, Judgment, worst
from edgekit.parity.predictors import same_source
from edgekit.parity.sweep import ImagePair, Sweep
from edgekit.parity.tally import Tally, plain

SCHEMA = 2
_SAMPLED = 0.4  # of the severities: what an image goes through at first
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
    start, busy = time.monotonic(), os.times()
    run = _Run(sweep, gates, chosen, console, labeled, size)
    try:
        seen = run.whole(full=full)
    except EnginesDiffer as error:
        # What the quick engine has said so far counts no more, here or in later runs.
        console.warn(f"{error}; parity starts again with '{error.trusted.name}' alone")
        with sweep.hold() as (reference, _):
            reference.clear()
        trusting = dataclasses.replace(sweep, reference=error.trusted)
        seen = dataclasses.replace(run, sweep=trusting).whole(full=full)
    engine = _engine(sweep)
    tally, judged = seen.tally, seen.judged
    used = os.times()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": judged.outcome,
        "reasons": judged.reasons,
        "more_images": judged.more_images,
        "seen": sweep.reference.seen,
        "reference": sweep.reference.name,
        "reference_engine": None if engine is None else engine.to_dict(),
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
        "severities_per_image": seen.levels,
        "saved": 1 - tally.evaluated / (2 * available * sweep.make.count),
        "inferences": seen.computed,
        "inferences_cached": tally.evaluated - seen.computed,
        "seconds": time.monotonic() - start,
        "cpu_seconds": (used.user + used.system + used.children_user + used.children_system)
        - (busy.user + busy.system + busy.children_user + busy.children_system),
        **tally.agreement(),
    }
    if judged.interval is None or judged.fixed is None or judged.deltas is None:
        return {**document, **dict.fromkeys(_NEED_LABELS), "worst": []}
    return {**document, **_errors(tally, chosen, judged, judged.deltas)}


def _engine(sweep: Sweep) -> EngineReport | None:
    """Which engine answered for the reference, where there was a choice."""
    reference = sweep.reference
    return reference.report if isinstance(reference, CheckedPredictor) else None


@dataclass(frozen=True)
class _Seen:
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

    def whole(self, *, full: bool) -> _Seen:
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

    def go(self) -> _Seen:
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
                return _Seen(tally, judged, levels, tally.computed)
        self.console.info("parity: the sample does not decide; going through all severities")
        return self.all_cells(stops=False, computed=tally.computed)

    def all_cells(self, *, stops: bool, computed: int = 0) -> _Seen:
        """All cells of every image that is looked at; ``computed`` inferences went before."""
        tally, judge = self._look(self._every, stops=stops)
        judged = judge.judge(tally, full=not stops)
        return _Seen(tally, judged, self._every, computed + tally.computed)

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
            for pair in self.console.track(pairs, total, title, note=judge.running):
                judge.add(tally.add(pair))
                if stops and judge.decided and tally.complete:
                    break
        return tally, judge


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
            "confidence": judged.confidence,
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
