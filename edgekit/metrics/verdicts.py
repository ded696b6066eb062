"""What an interval decides: pass, fail or undecided, and how many more images would decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edgekit.core.errors import UsageError
from edgekit.metrics.budgets import State, side
from edgekit.metrics.gate_figures import in_words
from edgekit.metrics.intervals import CorruptionDeltas, Interval

Outcome = Literal["pass", "fail", "undecided"]
_OUTCOMES: Final[dict[State, Outcome]] = {
    "held": "pass",
    "broken": "fail",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Verdict:
    """Whether the loss is within the tolerance. Undecided is not a pass."""

    outcome: Outcome
    more_images: int | None  # that would decide, if like those so far; None: no number would
    sentence: str


@dataclass(frozen=True)
class GateResult:
    """The outcome of one optional gate and, unless it passed, a line for each reason."""

    outcome: Outcome
    reasons: tuple[str, ...]
    more_images: int | None  # that would decide, as in `Verdict`


def verdict(interval: Interval, tolerance: float, confidence: float = 0.95) -> Verdict:
    """*pass* if the upper bound is within the tolerance (points), *fail* if the lower is beyond it.

    Otherwise *undecided*, with the number of further images that would decide if the estimate
    stays where it is and the interval shrinks with the root of their number.
    """
    if math.isnan(tolerance):
        raise UsageError("the tolerance is not a number: give points of mCE, such as 0.5")
    figures = (
        f"ΔmCE {interval.estimate:+.2f} points, {confidence:.0%} interval "
        f"[{interval.lower:+.2f}, {interval.upper:+.2f}], tolerance {tolerance:g}"
    )
    if interval.upper <= tolerance:
        return Verdict("pass", 0, f"pass: {figures}")
    if interval.lower > tolerance:
        return Verdict("fail", 0, f"fail: {figures}")
    more = _more_images(interval, tolerance)
    return Verdict("undecided", more, f"undecided: {figures}; {_advice(more, 'tolerance')}")


def corruption_gate(deltas: CorruptionDeltas, maximum: float) -> GateResult:
    """No corruption may lose more than ``maximum`` points; by the simultaneous intervals."""
    return _gate(
        {
            name: (_outcome(interval.lower, interval.upper, maximum), interval)
            for name, interval in deltas.intervals.items()
        },
        maximum,
        f"the maximum of {maximum:g} points",
    )


def agreement_gate(what: str, agreement: Interval, minimum: float) -> GateResult:
    """A share of equal answers (a fraction with its interval) must be at least ``minimum``."""
    outcome = _outcome(-agreement.upper, -agreement.lower, -minimum)
    outcomes = {what: (outcome, agreement)}
    return _gate(outcomes, minimum, f"the minimum of {minimum:g}", beyond="below")


def overall_outcome(*outcomes: Outcome) -> Outcome:
    """One outcome of several: a failure anywhere fails, all must pass to pass."""
    if "fail" in outcomes:
        return "fail"
    return "undecided" if "undecided" in outcomes else "pass"


def _advice(more: int | None, limit: str) -> str:
    if more is None:
        return f"no number of images would decide: the loss is at the {limit}"
    return f"about {more:,} more images like these would decide"


def _more_images(interval: Interval, tolerance: float) -> int | None:
    distance = abs(tolerance - interval.estimate)
    inside = interval.estimate < tolerance
    width = interval.upper - interval.estimate if inside else interval.estimate - interval.lower
    if distance == 0 or width / distance > 1e4:
        return None
    return max(1, math.ceil(interval.images * ((width / distance) ** 2 - 1)))


def _outcome(lower: float, upper: float, limit: float) -> Outcome:
    return _OUTCOMES[side(lower, upper, limit)]


def _gate(
    outcomes: dict[str, tuple[Outcome, Interval]], bound: float, limit: str, beyond: str = "beyond"
) -> GateResult:
    reasons, more = [], []
    for name, (outcome, i) in outcomes.items():
        figures = f"{name} {in_words(i.estimate, (i.lower, i.upper), bound)}"
        if outcome == "fail":
            reasons.append(f"{figures} is {beyond} {limit}")
        elif outcome == "undecided":
            more.append(_more_images(i, bound))
            advice = _advice(more[-1], "limit")
            reasons.append(f"{figures} is not shown to be within {limit}; {advice}")
    overall = overall_outcome(*(outcome for outcome, _ in outcomes.values()))
    return GateResult(overall, tuple(reasons), slowest(more) if overall == "undecided" else 0)


def slowest(images: Sequence[int | None]) -> int | None:
    """The most images that any of several gates needs; None if no number is enough for one."""
    known = [count for count in images if count is not None]
    return max(known, default=0) if len(known) == len(images) else None
