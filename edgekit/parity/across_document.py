"""The result of ``edgekit parity --across``: several artifacts, the same images.

docs/across.md describes every key. A key changes its meaning only with `SCHEMA`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from edgekit.core.documents import read
from edgekit.parity.document import Estimate, MeanError, ParityOutcome, SweepDocument

REMEDY: Final = "run 'edgekit parity --across' again"


@dataclass(frozen=True)
class Executed:
    """What really computed."""

    runtime: str
    devices: tuple[str, ...]
    """As the runtime names them; empty for a program, which does not say."""
    nodes: dict[str, int] | None
    """Nodes of the graph by provider, where the runtime tells."""
    asked: str | None
    """The place that the user named, or None."""
    fell_back: bool
    """What was asked for computed nothing."""
    described: str


@dataclass(frozen=True)
class Artifact:
    """One of the artifacts, and how it compares with the reference.

    ``change`` and ``verdict`` are None for the reference, and without labels all figures are.
    """

    letter: str
    name: str
    """As the command line has it."""
    images: str
    """How images reach it, in words."""
    executed: Executed
    clean_error: float | None
    corruption_error: float | None
    change: MeanError | None
    verdict: ParityOutcome | None
    reasons: tuple[str, ...]
    worst: tuple[str, ...]
    """The corruptions on which it lost most."""


@dataclass(frozen=True)
class PairAgreement:
    """How often two artifacts, by letter, choose the same class; fractions."""

    one: str
    other: str
    clean: Estimate
    corrupted: Estimate


@dataclass(frozen=True)
class OddOneOut:
    """The artifact that the others contradict, if one stands out."""

    letter: str | None
    kind: Literal["clean", "corrupted"] | None
    """On which images it does."""
    sentence: str


@dataclass(frozen=True)
class AcrossDocument(SweepDocument):
    """Several artifacts that answered the same images."""

    SCHEMA: ClassVar = 1

    reference: str
    """Its letter."""
    artifacts: tuple[Artifact, ...]
    agreement: tuple[PairAgreement, ...]
    odd_one_out: OddOneOut
    measured: str

    @staticmethod
    def from_dict(value: object, source: str) -> AcrossDocument:
        """A document; ``source`` is what error messages call it."""
        return read(AcrossDocument, value, source, schema=AcrossDocument.SCHEMA, remedy=REMEDY)

    def doubt(self) -> str:
        """What the check of the reference leaves open; empty if nothing."""
        checked = self.reference_check
        return "" if checked is None else checked.sentence(self.artifact(self.reference).name)

    def artifact(self, letter: str) -> Artifact:
        """The artifact of that letter."""
        return next(one for one in self.artifacts if one.letter == letter)
