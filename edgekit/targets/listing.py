"""What `edgekit targets` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgekit.core.documents import INLINE, Document
from edgekit.targets.descriptor import Descriptor


@dataclass(frozen=True)
class Target:
    """A descriptor, and whether this machine can run what is built for it."""

    descriptor: Descriptor = field(metadata=INLINE)
    runs_here: bool
    why_not: str | None

    @staticmethod
    def of(descriptor: Descriptor, why_not: str | None) -> Target:
        """A target that runs here unless there is a reason why not."""
        return Target(descriptor, why_not is None, why_not)


@dataclass(frozen=True)
class TargetList(Document):
    """Every target, or the one that was asked for."""

    SCHEMA: ClassVar = 1

    targets: tuple[Target, ...]
