"""The options of a comparison."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgekit.core.errors import UsageError
from edgekit.metrics.budgets import check_share
from edgekit.metrics.corruption_error import Baseline
from edgekit.parity.tolerance import TOLERANCE, check_tolerance


@dataclass(frozen=True)
class Gates:
    """What must hold for a pass; the first always, the others if given."""

    tolerance: float = TOLERANCE  # points of mean corruption error
    min_code_agreement: float | None = None  # a fraction
    max_corruption_delta: float | None = None  # points, for every single corruption
    min_agreement: float | None = None  # of the classes on corrupted images, a fraction

    def __post_init__(self) -> None:
        """Refuse limits that cannot decide anything."""
        check_tolerance(self.tolerance)
        check_share("min_code_agreement", self.min_code_agreement)
        check_share("min_agreement", self.min_agreement)
        largest = self.max_corruption_delta
        if largest is not None and not largest >= 0:
            raise UsageError(f"max_corruption_delta must not be negative, not {largest}")


@dataclass(frozen=True)
class ParityOptions:
    """The options a comparison ran with."""

    reference: str | None = None  # None: the float original, from the cache
    data: str | None = None  # None: what the bundle was built with
    labels: str | None = None
    gates: Gates = dataclasses.field(default_factory=Gates)
    corruptions: str | None = None  # None: the 15 of the benchmark
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    extra: bool = False
    # What mCE is normalized by; None: AlexNet's errors for 1000 classes. --normalize-by sets it.
    normalize_by: Baseline | None = dataclasses.field(default=None, metadata={"key": "baseline"})
    full: bool = False
    images: int = 0  # at most; 0 is all
    seed: int = 0  # of the order and of the corruptions
    skip_bad: bool = False
    allow_different_reference: bool = False
