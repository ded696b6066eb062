"""Budgets: limits that a bundle must keep, and whether what was measured shows that it does.

A budget is *held* or *broken* only if the whole interval of its measurement lies on one side of the
limit. Otherwise, and where nothing was measured, it is *undecided*, which is no pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from edgekit.core.errors import UsageError
from edgekit.metrics.gate_figures import in_words

State = Literal["held", "broken", "undecided"]


@dataclass(frozen=True)
class Budgets:
    """The TOML table ``[budgets]``; None sets no limit. docs/gates.md says how each is measured."""

    # How much worse than the reference, the float model.
    max_drop: float | None = None  # points of corruption error: parity's tolerance
    min_agreement: float | None = None  # share of equal classes on corrupted images
    max_scores_rms: float | None = None  # how far scores are off, a fraction of their RMS
    max_latency_ratio: float | None = None  # bundle's latency over float's, in the same run
    # What the device can spare.
    max_ms: float | None = None  # median latency
    max_mb: float | None = None  # size of the bundle's files
    max_memory_mb: float | None = None  # most memory in use
    max_cold_start_ms: float | None = None  # from starting a process to its first prediction
    # How much worse than the earlier bundle that --baseline names.
    max_regression: float | None = None  # points of corruption error
    max_slowdown: float | None = None  # bundle's latency over the earlier one's, in the same run

    def __post_init__(self) -> None:
        """Refuse limits that nothing could keep or break."""
        for name, limit in self.given():
            if not math.isfinite(limit):
                raise UsageError(f"{name} must be a number, not {limit}")
            if name == "min_agreement":
                check_share(name, limit)
            elif name in _MAY_BE_ZERO:
                if limit < 0:
                    raise UsageError(f"{name} must not be negative, not {limit:g}")
            elif limit <= 0:
                raise UsageError(f"{name} must be above 0, not {limit:g}")

    def given(self) -> list[tuple[str, float]]:
        """The limits that are set, in the table's order."""
        limits = ((name, getattr(self, name)) for name in BUDGETS)
        return [(name, limit) for name, limit in limits if limit is not None]

    def over(self, others: Budgets) -> Budgets:
        """These limits, and the others where these set none."""
        return dataclasses.replace(others, **dict(self.given()))

    def without(self, names: Iterable[str]) -> Budgets:
        """The same without the named limits."""
        return dataclasses.replace(self, **dict.fromkeys(names))


BUDGETS: Final = tuple(field.name for field in dataclasses.fields(Budgets))
_MAY_BE_ZERO: Final = ("max_drop", "max_regression")


@dataclass(frozen=True)
class Measured:
    """A figure; both bounds are None where its interval is unknown."""

    value: float
    lower: float | None = None
    upper: float | None = None
    of: str = ""
    """Which of several things the figure is of, such as the worst corruption."""


@dataclass(frozen=True)
class Judged:
    """A budget beside what was measured."""

    name: str
    limit: float
    measured: float | None
    lower: float | None
    upper: float | None
    state: State
    note: str = ""
    """What the figure is of, or why there is none."""

    @property
    def bound(self) -> str:
        """The limit in words."""
        return f"{'at least' if _is_least(self.name) else 'at most'} {self.limit:g}"

    @property
    def figures(self) -> str:
        """What was measured, with its interval."""
        if self.measured is None:
            return "not measured"
        return in_words(self.measured, self.interval, self.limit)

    @property
    def interval(self) -> tuple[float, float] | tuple[()]:
        """The measurement's interval; empty without one."""
        if self.lower is None or self.upper is None:
            return ()
        return self.lower, self.upper

    def sentence(self) -> str:
        """All of it, for a message of one line."""
        note = f", {self.note}" if self.note else ""
        return f"{self.name} {self.state} ({self.figures}, {self.bound}{note})"


@dataclass(frozen=True)
class LeftOut:
    """A budget of a shared file that a command cannot judge, and why."""

    name: str
    why: str


def judge(name: str, limit: float, measured: Measured | None, why: str = "") -> Judged:
    """A budget's state; ``why`` says what is missing where nothing was measured."""
    if measured is None or math.isnan(measured.value):
        return Judged(name, limit, None, None, None, "undecided", why or "it was not measured")
    low = measured.value if measured.lower is None else measured.lower
    high = measured.value if measured.upper is None else measured.upper
    state = side(-high, -low, -limit) if _is_least(name) else side(low, high, limit)
    return Judged(name, limit, measured.value, measured.lower, measured.upper, state, measured.of)


def side(lower: float, upper: float, most: float) -> State:
    """On which side of ``most`` an interval lies; touching it from below is within."""
    if upper <= most:
        return "held"
    return "broken" if lower > most else "undecided"


def overall(rows: Iterable[Judged]) -> State:
    """One state of several: one broken breaks all, and all must hold to hold."""
    states = {row.state for row in rows}
    if "broken" in states:
        return "broken"
    return "undecided" if "undecided" in states else "held"


def judged_by(
    options: Budgets, shared: Budgets, unable: Mapping[str, str]
) -> tuple[Budgets, tuple[LeftOut, ...]]:
    """The budgets of a command: its ``options`` over those of a ``shared`` file.

    ``unable`` names those that it cannot judge, and why. As an option, one of them is a mistake;
    in a file, which several commands read, it is left out.
    """
    for name, _ in options.given():
        if name in unable:
            raise UsageError(f"{option(name)} cannot be judged here: {unable[name]}")
    left_out = tuple(LeftOut(name, unable[name]) for name, _ in shared.given() if name in unable)
    return options.over(shared.without(one.name for one in left_out)), left_out


def option(name: str) -> str:
    """A budget as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def check_share(name: str, limit: float | None) -> None:
    """Refuse a least share that no sample can show."""
    if limit is not None and not 0 < limit < 1:
        raise UsageError(
            f"{name} must lie between 0 and 1, not {limit:g}: use 0.999 if you mean always, no "
            "sample can show 1"
        )


def _is_least(name: str) -> bool:
    return name.startswith("min_")
