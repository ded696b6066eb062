"""What ``edgekit build --json`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgekit.core.documents import INLINE, SPARSE, Document
from edgekit.parity.document import ParityDocument
from edgekit.report.gate import GateSection
from edgekit.steps.build_record import Outcome


@dataclass(frozen=True)
class BuiltBundle:
    """One target's bundle and its measurements."""

    outcome: Outcome = field(metadata=INLINE)
    baseline: ParityDocument | None = field(default=None, metadata=SPARSE)
    """The comparison with the earlier bundle."""


@dataclass(frozen=True)
class BuildReport(Document):
    """The bundles that a build made or found up to date, one a target, and their budgets."""

    SCHEMA: ClassVar = 1

    bundles: tuple[BuiltBundle, ...]
    gate: GateSection
