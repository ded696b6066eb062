"""The gates of a comparison: when it may stop, and its verdict.

Each gate is a bound on a mean over images, tracked by a confidence sequence, which holds however
often it is read. If the images run out first, the ordinary interval is read once; if that covered
only part of each image's cells and does not decide, once more over all of them. A wrong verdict
then has three chances: 2%, 0.5% and 2.5%.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgekit.core.errors import UsageError
from edgekit.data.corruption_grid import Cells
from edgekit.metrics.budgets import Judged, Measured, judge
from edgekit.metrics.confidence_sequence import (
    SequentialDelta,
    SequentialState,
    score_bound,
    sequential_scores,
)
from edgekit.metrics.corruption_error import Baseline
from edgekit.metrics.intervals import (
    CorruptionDeltas,
    Interval,
    PairedErrors,
    cell_weights,
    corruption_deltas,
    corruption_weights,
    delta_interval,
)
from edgekit.metrics.verdicts import (
    GateResult,
    Outcome,
    Verdict,
    agreement_gate,
    corruption_gate,
    overall_outcome,
    slowest,
    verdict,
)
from edgekit.parity.document import ParityOutcome
from edgekit.parity.options import Gates
from edgekit.parity.tally import ImageScore, Tally

ALPHA = 0.04  # of the sequences, both sides
SAMPLE_CONFIDENCE = 0.99  # of the interval over part of the cells


@dataclass(frozen=True)
class Judgment:
    """The verdict, and everything that the report says about how it was reached."""

    outcome: ParityOutcome
    reasons: list[str]
    more_images: int | None  # that would decide; None: unknown, or no number would
    interval: Interval | None  # of the mean corruption error's difference
    anytime: bool  # the interval holds at every look, not only at the end
    confidence: float
    fixed: Interval | None
    deltas: CorruptionDeltas | None
    budgets: tuple[Judged, ...]  # each gate beside the interval that judged it


class _Mode(NamedTuple):
    """How a comparison ended."""

    full: bool  # everything had to be evaluated
    ended: bool  # the images ran out before the gates were decided

    def fixed(self, state: SequentialState) -> bool:
        """Whether the interval for a fixed number of images decides."""
        return self.full or (self.ended and not state.decided)


@dataclass(frozen=True)
class _Share:
    """A gate on a share of equal answers, and its sequence, which counts the different ones."""

    what: str
    budget: str
    minimum: float
    sequence: SequentialDelta


class GateTracker:
    """Tracks the gates; `decided` turns true once the verdict cannot change any more."""

    def __init__(
        self, gates: Gates, cells: Cells, baseline: Baseline, *, labeled: bool, coded: bool
    ) -> None:
        if gates.min_code_agreement is not None and not coded:
            raise UsageError(
                "the two models have no codes to compare (no codebook, or different ones): drop "
                "--min-code-agreement"
            )
        if gates.max_corruption_delta is not None and not labeled:
            raise UsageError(
                "--max-corruption-delta needs labels, and the data have none for this model: give "
                "--labels, or gate on agreement with --min-code-agreement"
            )
        self._gates, self._cells, self._baseline = gates, cells, baseline
        self._labeled = labeled
        self._weights = cell_weights(cells.corruptions, cells.severities, baseline)
        self._own_weights = corruption_weights(cells.corruptions, cells.severities, baseline)
        bound = score_bound(self._weights)
        self._main = SequentialDelta(gates.tolerance, ALPHA, bound=bound) if labeled else None
        self._each: list[SequentialDelta] = []
        if gates.max_corruption_delta is not None:
            share = ALPHA / len(cells.corruptions)  # all of them hold at once
            self._each = [
                SequentialDelta(gates.max_corruption_delta, share, bound=float(row.sum()))
                for row in self._own_weights
            ]
        self._class = self._code = None
        if gates.min_agreement is not None:
            self._class = _share("top-1 agreement", "min_agreement", gates.min_agreement)
        if gates.min_code_agreement is not None:
            self._code = _share("code agreement", "min_code_agreement", gates.min_code_agreement)
        self._waiting: list[ImageScore] = []
        self._included = 0

    def add(self, image: ImageScore) -> None:
        """Add an image, and update the sequences once enough new ones are waiting.

        Updating less often is always allowed; after every image it would cost more than the
        models do once there are thousands.
        """
        self._waiting.append(image)
        if len(self._waiting) >= max(4, self._included // 100):
            self.update()

    def update(self) -> None:
        """Bring the sequences up to date with all images added."""
        if not self._waiting:
            return
        differences = np.stack([image.difference for image in self._waiting])
        measured = np.stack([image.measured for image in self._waiting])
        if self._main is not None:
            self._main.update(sequential_scores(differences, self._weights, measured))
        for c, sequence in enumerate(self._each):
            weights = self._own_weights[c : c + 1]
            sequence.update(
                sequential_scores(differences[:, c : c + 1], weights, measured[:, c : c + 1])
            )
        if self._class is not None:
            agreement = np.array([image.same_class for image in self._waiting], np.float64)
            self._class.sequence.update(100 * (1 - agreement))
        if self._code is not None:
            agreement = np.array([image.same_code for image in self._waiting], np.float64)
            self._code.sequence.update(100 * (1 - agreement))
        self._included += len(self._waiting)
        self._waiting = []

    def outcomes(self) -> list[Outcome]:
        """Where each gate stands."""
        sequences = [*([self._main] if self._main else []), *self._each]
        sequences += [share.sequence for share in (self._class, self._code) if share]
        return [sequence.state().outcome for sequence in sequences]

    @property
    def gated(self) -> bool:
        """Whether there is anything to decide."""
        return bool(self.outcomes())

    @property
    def decided(self) -> bool:
        """Whether more images cannot change the verdict."""
        outcomes = self.outcomes()
        return bool(outcomes) and ("fail" in outcomes or "undecided" not in outcomes)

    def running(self) -> str:
        """The running estimate, for the progress line."""
        if self._main is None:
            return ""
        state = self._main.state()
        return f"difference {state.estimate:+.2f} [{state.lower:+.2f}, {state.upper:+.2f}]"

    def judgment(self, tally: Tally, *, full: bool, confidence: float = 0.95) -> Judgment:
        """The verdict over the images added; ``confidence`` applies to fixed-sample intervals."""
        self.update()
        mode = _Mode(full=full, ended=not self.decided)
        gates: list[GateResult] = []
        rows: list[Judged] = []
        for share, interval in (
            (self._class, tally.class_interval(confidence)),
            (self._code, tally.code_interval(confidence)),
        ):
            if share is not None:
                assert interval is not None
                shown = _shown_share(share, interval, mode)
                gates.append(agreement_gate(share.what, shown, share.minimum))
                rows.append(judge(share.budget, share.minimum, _measured(shown)))
        if self._main is None:
            return _unlabeled(gates, rows, confidence)
        paired = PairedErrors(
            tally.differences(),
            self._cells.corruptions,
            self._cells.severities,
            self._baseline,
            tally.measured(),
        )
        fixed, deltas = delta_interval(paired), corruption_deltas(paired)
        if self._each:
            strict = deltas if confidence == 0.95 else corruption_deltas(paired, confidence)
            gate, row = self._corruption_result(strict, mode)
            gates.append(gate)
            rows.append(row)
        state = self._main.state()
        anytime = not mode.fixed(state)
        interval = delta_interval(paired, confidence)
        if anytime:
            confidence = 0.95  # at least
            interval = _anytime(fixed.estimate, state)
        delta_verdict = verdict(interval, self._gates.tolerance, confidence)
        outcome = overall_outcome(delta_verdict.outcome, *(gate.outcome for gate in gates))
        parts: list[Verdict | GateResult] = [delta_verdict, *gates]
        more = [part.more_images for part in parts if part.outcome == "undecided"]
        return Judgment(
            outcome,
            [delta_verdict.sentence, *(reason for gate in gates for reason in gate.reasons)],
            slowest(more) if outcome == "undecided" else 0,
            interval,
            anytime,
            confidence,
            fixed,
            deltas,
            (judge("max_drop", self._gates.tolerance, _measured(interval)), *rows),
        )

    def _corruption_result(
        self, deltas: CorruptionDeltas, mode: _Mode
    ) -> tuple[GateResult, Judged]:
        limit = self._gates.max_corruption_delta
        assert limit is not None
        intervals = {}
        for name, sequence in zip(self._cells.corruptions, self._each, strict=True):
            state = sequence.state()
            intervals[name] = deltas.intervals[name]
            if not mode.fixed(state):
                intervals[name] = _anytime(deltas.intervals[name].estimate, state)
        gate = corruption_gate(CorruptionDeltas(intervals, deltas.critical), limit)
        # The row of a gate that failed is that of a corruption that is beyond the limit, by most.
        name = max(intervals, key=lambda one: (intervals[one].lower > limit, intervals[one].upper))
        return gate, judge("max_corruption_delta", limit, _measured(intervals[name], name))


def _share(what: str, budget: str, minimum: float) -> _Share:
    return _Share(what, budget, minimum, SequentialDelta(100 * (1 - minimum), ALPHA))


def _shown_share(share: _Share, fixed: Interval, mode: _Mode) -> Interval:
    """The interval that decides about a share of equal answers."""
    state = share.sequence.state()
    if mode.fixed(state):
        return fixed
    return Interval(
        1 - state.estimate / 100,
        1 - min(state.upper / 100, 1.0),  # the sequence allows for losses below 0
        1 - max(state.lower / 100, 0.0),
        state.images,
    )


def _measured(interval: Interval, of: str = "") -> Measured:
    return Measured(interval.estimate, interval.lower, interval.upper, of)


def _unlabeled(gates: list[GateResult], rows: list[Judged], confidence: float) -> Judgment:
    """Without labels only the shares of equal answers can decide."""
    nothing = (None, False, confidence, None, None, tuple(rows))
    if not gates:
        return Judgment("unlabeled", [UNLABELED], None, *nothing)
    outcome = overall_outcome(*(gate.outcome for gate in gates))
    more = [gate.more_images for gate in gates if gate.outcome == "undecided"]
    return Judgment(
        outcome,
        [UNLABELED, *(reason for gate in gates for reason in gate.reasons)],
        slowest(more) if outcome == "undecided" else 0,
        *nothing,
    )


def _anytime(estimate: float, state: SequentialState) -> Interval:
    """The limits of a sequence around the plain difference of the two figures.

    The mean of the scores differs a little from it where images went through part of the cells,
    because some cells were drawn more often than others.
    """
    inside = min(max(estimate, state.lower), state.upper)
    return Interval(inside, state.lower, state.upper, state.images)


UNLABELED = (
    "not judged: the data have no labels for this model, so errors and their difference are "
    "unknown (give --labels)"
)


def worst(deltas: CorruptionDeltas, count: int = 3) -> Sequence[str]:
    """The corruptions that lost most, among those that lost anything."""
    return [name for name in deltas.worst() if deltas.intervals[name].estimate > 0][:count]
