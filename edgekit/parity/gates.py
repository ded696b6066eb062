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
    code_agreement_gate,
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


class _Mode(NamedTuple):
    """How a comparison ended."""

    full: bool  # everything had to be evaluated
    ended: bool  # the images ran out before the gates were decided

    def fixed(self, state: SequentialState) -> bool:
        """Whether the interval for a fixed number of images decides."""
        return self.full or (self.ended and not state.decided)


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
        self._code = None
        if gates.min_code_agreement is not None:
            self._code = SequentialDelta(100 * (1 - gates.min_code_agreement), ALPHA)
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
        if self._code is not None:
            agreement = np.array([image.same_code for image in self._waiting], np.float64)
            self._code.update(100 * (1 - agreement))
        self._included += len(self._waiting)
        self._waiting = []

    def outcomes(self) -> list[Outcome]:
        """Where each gate stands."""
        sequences = [*([self._main] if self._main else []), *self._each]
        sequences += [self._code] if self._code else []
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
        if self._gates.min_code_agreement is not None:
            agreement = tally.code_interval(confidence)
            assert agreement is not None
            gates.append(self._code_result(agreement, self._gates.min_code_agreement, mode))
        if self._main is None:
            if not gates:
                return Judgment("unlabeled", [UNLABELED], None, None, False, 0.95, None, None)
            return Judgment(
                gates[0].outcome,
                [UNLABELED, *gates[0].reasons],
                gates[0].more_images,
                *(None, False, confidence, None, None),
            )
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
            gates.append(self._corruption_result(strict, mode))
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
        )

    def _code_result(self, fixed: Interval, minimum: float, mode: _Mode) -> GateResult:
        assert self._code is not None
        state = self._code.state()
        if mode.fixed(state):
            return code_agreement_gate(fixed, minimum)
        anytime = Interval(
            1 - state.estimate / 100, 1 - state.upper / 100, 1 - state.lower / 100, state.images
        )
        return code_agreement_gate(anytime, minimum)

    def _corruption_result(self, deltas: CorruptionDeltas, mode: _Mode) -> GateResult:
        assert self._gates.max_corruption_delta is not None
        intervals = {}
        for name, sequence in zip(self._cells.corruptions, self._each, strict=True):
            state = sequence.state()
            intervals[name] = deltas.intervals[name]
            if not mode.fixed(state):
                intervals[name] = _anytime(deltas.intervals[name].estimate, state)
        return corruption_gate(
            CorruptionDeltas(intervals, deltas.critical), self._gates.max_corruption_delta
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
