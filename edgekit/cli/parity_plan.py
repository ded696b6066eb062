"""``edgekit parity --plan``: how many images a tolerance needs, before anything is compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgekit.core.console import Console
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.tables import Column, Table

if TYPE_CHECKING:
    from edgekit.metrics.planning import Case


@dataclass(frozen=True)
class PlannedCase:
    """What a candidate of this kind needs."""

    candidate: str
    spread: float | None
    """Standard deviation of an image's score, points; null: no answer changes."""
    decides: float | None
    """Points that the images at hand decide; null without any."""
    images: int
    """Test images that decide the tolerance, nine times in ten, if nothing was lost."""


@dataclass(frozen=True)
class ParityPlan(Document):
    """How many test images a tolerance needs."""

    SCHEMA: ClassVar = 1

    tolerance: float
    data: str | None
    """The data whose test images are at hand."""
    images: int | None
    """Their number; null without data."""
    test_share: float | None
    """The share of the data that becomes test images; null if the data come split."""
    cases: tuple[PlannedCase, ...]


def plan_parity(
    console: Console,
    candidates: tuple[str, ...],
    data: str | None,
    tolerance: float,
    seed: int,
    *,
    skip_bad: bool,
) -> None:
    """Print how many images decide ``tolerance``; a bundle's own comparison makes it sharper."""
    from edgekit.metrics.planning import CASES, check_plannable

    check_plannable(tolerance)
    if len(candidates) > 1:
        raise UsageError("--plan takes one bundle that was compared before, or none")
    cases = (*map(_measured, candidates), *CASES)
    images, share = (None, None) if data is None else _at_hand(data, seed, skip_bad=skip_bad)
    plan = ParityPlan(
        tolerance, data, images, share, tuple(_planned(case, tolerance, images) for case in cases)
    )
    console.document(plan)
    rows = [
        [
            case.candidate,
            f"{case.images:,}",
            *(() if case.decides is None else (f"±{case.decides:.2g}",)),
        ]
        for case in plan.cases
    ]
    console.table(head(images), rows, f"tolerance {tolerance:g} points")
    if share is not None:
        most = max(case.images for case in plan.cases)
        console.prose(
            f"{share:.0%} of {data} are test images: collect {math.ceil(most / share):,} to be sure"
        )
    console.prose(
        "these decide that a model which lost nothing passes, nine times in ten; a real loss shows "
        "sooner"
    )


def head(images: int | None) -> Table:
    """Of the table, which has a column more if there are images at hand."""
    at_hand = () if images is None else (Column(f"{images} decide", "figure"),)
    return Table.of(Column("candidate", "prose"), Column("images needed", "figure"), *at_hand)


def _planned(case: Case, tolerance: float, images: int | None) -> PlannedCase:
    decides = None if images is None else case.decides(images)
    return PlannedCase(case.name, case.spread, decides, case.images(tolerance))


def _measured(bundle: str) -> Case:
    from edgekit.bundle.store import open_bundle
    from edgekit.metrics.intervals import Interval
    from edgekit.metrics.planning import measured_case
    from edgekit.parity.document import read_graph_parity, read_parity

    opened = open_bundle(Path(bundle), any_arch=True)
    document = read_parity(opened) or read_graph_parity(opened)  # as many images decide either
    if document is None or document.corruption_error is None:
        raise UsageError(f"{bundle} was not compared on labeled images: leave it out of the plan")
    found = document.corruption_error.fixed_sample
    interval = Interval(found.estimate, found.lower, found.upper, document.images)
    return measured_case(f"{bundle}, as on {document.images:,} images", interval)


def _at_hand(data: str, seed: int, *, skip_bad: bool) -> tuple[int, float | None]:
    """The number of test images, and the share that a seeded split gives them."""
    from edgekit.data.datasets import open_dataset
    from edgekit.data.splits import SplitSizes, split_dataset

    splits = split_dataset(open_dataset(data, skip_bad=skip_bad), seed=seed)
    if len(splits.test) < 1:
        raise UsageError(f"{data} has no test images to plan with: leave --data out")
    return len(splits.test), SplitSizes().test if splits.origin == "seeded" else None
