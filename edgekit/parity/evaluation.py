"""Evaluates images until it is certain how each model compares with the first.

By default each image goes through two of five severities of every corruption, drawn at random, and
the run stops as soon as all verdicts are certain. If the images run out without deciding, or with
``full``, all images go through everything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, cast

from edgekit.core.console import Console
from edgekit.core.progress import track
from edgekit.metrics.corruption_error import Baseline
from edgekit.parity.agreement import Agreements
from edgekit.parity.changes import Changes
from edgekit.parity.gates import SAMPLE_CONFIDENCE, GateTracker, Judgment
from edgekit.parity.options import Gates
from edgekit.parity.sweep import ImageAnswers, Lineup
from edgekit.parity.tally import Tally

_SAMPLED = 0.4  # of the severities: the share that an image goes through at first


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated when it ended; tallies and judgments are of the second model onwards."""

    tallies: tuple[Tally, ...]
    judgments: tuple[Judgment, ...]
    agreements: Agreements | None
    levels: int  # severities of a corruption that an image went through
    computed: int  # inferences
    stopped: bool  # by the verdicts, before the images ran out
    changes: tuple[Changes, ...] = ()  # one for each tally


class _Sums(NamedTuple):
    tallies: tuple[Tally, ...]
    trackers: tuple[GateTracker, ...]
    changes: tuple[Changes, ...]
    agreements: Agreements | None
    computed: int
    stopped: bool

    @property
    def complete(self) -> bool:
        return all(tally.complete for tally in self.tallies)

    def judgments(self, *, full: bool, confidence: float = 0.95) -> tuple[Judgment, ...]:
        pairs = zip(self.tallies, self.trackers, strict=True)
        return tuple(
            tracker.judgment(tally, full=full, confidence=confidence) for tally, tracker in pairs
        )

    def evaluation(
        self, judgments: tuple[Judgment, ...], levels: int, computed: int = 0
    ) -> Evaluation:
        computed += self.computed
        return Evaluation(
            self.tallies,
            judgments,
            self.agreements,
            levels,
            computed,
            self.stopped,
            self.changes,
        )


@dataclass(frozen=True)
class Run:
    """Evaluates images until the verdicts are certain."""

    lineup: Lineup
    gates: Gates
    baseline: Baseline
    console: Console
    labeled: bool
    codebook_size: int
    names: tuple[str, ...] = ()  # of all models, where each two shall be compared
    worst: int = 0  # changed answers to keep, to be looked at

    def evaluate(self, *, full: bool) -> Evaluation:
        """All cells of all images if ``full``, else as many as the verdicts need."""
        with self.lineup.hold():
            if full or not self.gate_tracker().gated:
                return self.all_cells(stops=False)
            return self.sample_first()

    def gate_tracker(self) -> GateTracker:
        """A new one, without images."""
        return GateTracker(
            self.gates,
            self.lineup.make.cells,
            self.baseline,
            labeled=self.labeled,
            coded=self.codebook_size > 0,
        )

    def sample_first(self) -> Evaluation:
        """First a sample of each image's cells; if that does not decide, all cells.

        An image's first few cells are the most informative. Their answers are cached, so going on
        costs only the other cells.
        """
        levels = max(1, int(_SAMPLED * self._all_levels))
        if levels == self._all_levels:
            return self.all_cells(stops=True)
        sums = self._evaluate(levels, stops=True)
        if sums.complete:
            judgments = sums.judgments(full=False, confidence=SAMPLE_CONFIDENCE)
            if all(judgment.outcome in ("pass", "fail") for judgment in judgments):
                return sums.evaluation(judgments, levels)
        self.console.info("parity: the sample does not decide; evaluating all severities")
        return self.all_cells(stops=False, computed=sums.computed)

    def all_cells(self, *, stops: bool, computed: int = 0) -> Evaluation:
        """All cells of every evaluated image; ``computed`` counts the inferences made before."""
        sums = self._evaluate(self._all_levels, stops=stops)
        return sums.evaluation(sums.judgments(full=not stops), self._all_levels, computed)

    @property
    def _all_levels(self) -> int:
        return len(self.lineup.make.cells.severities)

    def _evaluate(self, levels: int, *, stops: bool) -> _Sums:
        """Image after image, until the gates are decided (if ``stops``) or none are left."""
        cells, total = self.lineup.make.cells, self.lineup.available
        others = range(1, len(self.lineup.models))
        trackers = tuple(self.gate_tracker() for _ in others)
        tallies = tuple(
            Tally(cells, labeled=self.labeled, codebook_size=self.codebook_size) for _ in others
        )
        changes = tuple(
            Changes(cells, labeled=self.labeled, coded=self.codebook_size > 0, most=self.worst)
            for _ in others
        )
        agreements = Agreements(self.names) if self.names else None
        computed, stopped = 0, False
        title = f"parity, {1 + levels * len(cells.corruptions)} variants per image"
        images = cast("Generator[ImageAnswers, None, None]", self.lineup.answers(levels))

        def note() -> str:
            if len(trackers) == 1:
                return trackers[0].running()
            return f"{sum(tracker.decided for tracker in trackers)} of {len(trackers)} decided"

        # Always closed: an open one would leave its workers running until it is collected.
        shown = track(self.console, images, total, title, note=note)
        with contextlib.closing(images), contextlib.closing(shown):
            for image in shown:
                computed += image.computed
                if agreements is not None:
                    agreements.add(image)
                sums = zip(others, tallies, trackers, changes, strict=True)
                for other, tally, tracker, changed in sums:
                    pair = image.pair(other)
                    tracker.add(tally.add(pair))
                    changed.add(pair)
                decided = all(tracker.decided for tracker in trackers)
                if stops and decided and all(tally.complete for tally in tallies):
                    stopped = True
                    break
        return _Sums(tallies, trackers, changes, agreements, computed, stopped)
