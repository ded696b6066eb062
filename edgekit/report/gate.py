"""The outcome of a gate: a row a budget for each bundle, in JSON, on a terminal and in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from edgekit.bench.document import BenchReport
from edgekit.core.console import Console
from edgekit.core.documents import INLINE, SPARSE, Document
from edgekit.core.tables import Column, Table
from edgekit.metrics.budgets import Judged, LeftOut, State, overall
from edgekit.metrics.gate_figures import figures
from edgekit.parity.document import CorruptionChange, ParityDocument, Subject
from edgekit.report.page import REPORT

OF_GRAPH: Final = "of the graph, not of the engine"
BUDGETS: Final = Table.of(
    "budget",
    "limit",
    Column("measured", "figure"),
    Column("95% interval", "figure"),
    "state",
    Column("", "prose"),
)


@dataclass(frozen=True)
class Change:
    """A corruption's change against the reference or an earlier bundle, in points."""

    corruption: str
    against: str
    delta: float
    lower: float
    upper: float

    @property
    def worse(self) -> bool:
        """Whether the interval, which holds for all corruptions at once, lies above zero."""
        return self.lower > 0

    @property
    def figures(self) -> str:
        """The change with its interval."""
        return f"{self.delta:+.2f} [{self.lower:+.2f}, {self.upper:+.2f}]"


@dataclass(frozen=True)
class GatedBundle:
    """What is known of one bundle, or of another classifier."""

    name: str
    budgets: tuple[Judged, ...]
    changes: tuple[Change, ...] = ()
    verdict: str | None = None
    """Parity's, where that was measured."""
    reason: str = ""
    """Why that is no pass."""
    report: str | None = None
    """The bundle's page, if it has one."""
    judged: Subject = "model"
    """What the verdict and the budgets of robustness are about."""

    @property
    def what(self) -> str:
        """What was judged for the verdict, in words."""
        return "parity" if self.judged == "model" else f"parity {OF_GRAPH}"

    @property
    def not_held(self) -> tuple[Judged, ...]:
        """The budgets that fail the gate."""
        return tuple(row for row in self.budgets if row.state != "held")

    @property
    def state(self) -> State:
        """Of all budgets; a verdict that none of them explains is undecided."""
        state = overall(self.budgets)
        if state == "held" and self.verdict not in (None, "pass"):
            return "broken" if self.verdict == "fail" else "undecided"
        return state


@dataclass(frozen=True)
class BundleSection:
    """The budgets of one bundle, or of another classifier."""

    bundle: str
    state: State
    budgets: tuple[Judged, ...]
    worse: tuple[Change, ...]
    """Corruptions that lost more than chance explains."""
    judged: Subject = "model"
    """Of a bundle whose engine is pending, only its graph was: ``graph``."""


@dataclass(frozen=True)
class GateSection:
    """Which budgets are held."""

    state: State
    bundles: tuple[BundleSection, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class GatedParity(Document):
    """A comparison, and whether its budgets are held."""

    SCHEMA: ClassVar = ParityDocument.SCHEMA

    comparison: ParityDocument = field(metadata=INLINE)
    gate: GateSection
    baseline: ParityDocument | None = field(default=None, metadata=SPARSE)
    """The same comparison with the earlier bundle as the reference."""


@dataclass(frozen=True)
class GatedBench(Document):
    """What was measured, and whether its budgets are held."""

    SCHEMA: ClassVar = BenchReport.SCHEMA

    report: BenchReport = field(metadata=INLINE)
    gate: GateSection


@dataclass(frozen=True)
class GateReport:
    """The outcome of a command's gate."""

    command: str
    bundles: tuple[GatedBundle, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def state(self) -> State:
        """Of all bundles."""
        states = {bundle.state for bundle in self.bundles}
        return "broken" if "broken" in states else "undecided" if "undecided" in states else "held"

    def section(self) -> GateSection:
        """The section ``gate`` of the command's JSON."""
        return GateSection(
            self.state,
            tuple(
                BundleSection(
                    bundle.name,
                    bundle.state,
                    bundle.budgets,
                    tuple(change for change in bundle.changes if change.worse),
                    bundle.judged,
                )
                for bundle in self.bundles
            ),
            self.left_out,
        )

    def show(self, console: Console, *, always: bool = False) -> None:
        """The table, where there is more in it than parity's own verdict says (or ``always``)."""
        for one in self.left_out:
            console.info(f"{one.name} is left out: {one.why}")
        for bundle in self.bundles:
            if not always and all(row.name == "max_drop" for row in bundle.budgets):
                continue
            title = bundle.name if len(self.bundles) > 1 else ""
            console.table(BUDGETS, [_cells(row) for row in bundle.budgets], title)

    def failure(self) -> str:
        """Every budget that is broken or undecided, in one line."""
        parts = []
        for bundle in self.bundles:
            text = "; ".join(row.sentence() for row in bundle.not_held)
            if text:
                parts.append(f"{bundle.name}: {text}" if len(self.bundles) > 1 else text)
        return "; ".join(parts)


def changes(document: ParityDocument, against: str) -> tuple[Change, ...]:
    """How every corruption changed."""
    found: Mapping[str, CorruptionChange] = document.per_corruption or {}
    return tuple(
        Change(name, against, change.delta, change.lower, change.upper)
        for name, change in found.items()
    )


def report_of(bundle: Path) -> str | None:
    """The path of a bundle's page, if it has one."""
    page = bundle / REPORT
    return str(page) if page.is_file() else None


def _cells(row: Judged) -> list[str]:
    measured, between = "-", ""
    if row.measured is not None:
        measured, *ends = figures(row.measured, row.interval, row.limit)
        between = f"[{', '.join(ends)}]" if ends else ""
    return [row.name, row.bound, measured, between, row.state, row.note]
