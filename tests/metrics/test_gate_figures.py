"""Gates say as many digits as mean something, and never a figure that looks like its limit."""

from __future__ import annotations

import math

import pytest

from edgekit.metrics.budgets import Judged
from edgekit.metrics.gate_figures import in_words
from edgekit.metrics.intervals import Interval
from edgekit.metrics.verdicts import agreement_gate


@pytest.mark.parametrize(
    ("measured", "interval", "limit", "said"),
    [
        (0.12341, (-0.05124, 0.29872), 0.5, "0.12 [-0.05, 0.3]"),
        (0.97123, (0.96012, 0.98234), 0.98, "0.971 [0.96, 0.982]"),
        (0.34127, (0.34011, 0.34268), 0.6, "0.3413 [0.3401, 0.3427]"),
        (1234.56, (1190.1, 1279.7), 1000, "1235 [1190, 1280]"),
        (312.4567, (), 300, "312"),
        (9.8765, (), 30, "9.88"),
        (12, (), 5, "12"),
        (0.0, (), 5, "0"),
        (-0.0004, (-0.2, 0.2), 0.5, "0 [-0.2, 0.2]"),
        # The upper end is beyond the limit, and seen to be.
        (0.3, (0.1, 0.5004), 0.5, "0.3 [0.1, 0.5004]"),
        (0.5, (0.3, 0.7), 0.5, "0.5 [0.3, 0.7]"),
        (30.004, (), 30, "30.004"),
        (math.inf, (), 30, "inf"),
    ],
)
def test_digits(measured: float, interval: tuple[float, ...], limit: float, said: str) -> None:
    assert in_words(measured, interval, limit) == said


def test_sentences_have_them() -> None:
    budget = Judged("max_drop", 0.5, 0.12341, -0.05124, 0.29872, "held")
    assert budget.figures == "0.12 [-0.05, 0.3]"
    (reason,) = agreement_gate("codes", Interval(0.91234, 0.90111, 0.92357, 500), 0.95).reasons
    assert reason == "codes 0.912 [0.901, 0.924] is below the minimum of 0.95"
