"""``parity.json``: the result of a comparison for one bundle.

docs/parity.md describes every key. A key changes its meaning only with the number of its schema.
The manifest's section ``parity`` is the same without `DETAILS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

from edgekit.bundle.store import Bundle
from edgekit.core.documents import SPARSE, Document, DocumentError, parse_json, read
from edgekit.core.errors import UsageError
from edgekit.metrics.budgets import Judged
from edgekit.metrics.corruption_error import Baseline
from edgekit.parity.options import Gates, ParityOptions
from edgekit.parity.reference_check import ReferenceCheck

FILE: Final = "parity.json"
GRAPH_FILE: Final = "graph-parity.json"
"""The comparison of a pending bundle's graph; the manifest's section is `GRAPH_SECTION`."""
GRAPH_SECTION: Final = "graph_parity"
_DETAIL: Final = MappingProxyType({"detail": True})  # metadata of what a summary leaves out
REMEDY: Final = "run 'edgekit parity' on the bundle again"

ParityOutcome = Literal["pass", "fail", "undecided", "unlabeled"]
Corrupted = Literal["in memory", "published"]
Subject = Literal["model", "graph"]
"""What was judged: what runs, or only the graph that an engine will be built from."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class OfBoth:
    """A figure for each of the two models."""

    reference: float
    candidate: float


@dataclass(frozen=True)
class Sides:
    """How images reach each model and what runs it, in words."""

    reference: str
    candidate: str


@dataclass(frozen=True)
class MeanError:
    """The mean corruption errors, their difference, and its interval."""

    reference: float
    candidate: float
    label: str
    baseline: Baseline
    delta: float
    lower: float
    upper: float
    interval: Literal["anytime", "fixed sample"]
    confidence: float
    fixed_sample: Estimate


@dataclass(frozen=True)
class RelativeError:
    """The relative mean corruption errors."""

    reference: float
    candidate: float
    label: str


@dataclass(frozen=True)
class ErrorsBySeverity:
    """Percent, by increasing severity."""

    reference: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class CorruptionChange:
    """Both errors under one corruption, and their difference; intervals hold for all at once."""

    reference: float
    candidate: float
    delta: float
    lower: float
    upper: float
    averaged: bool
    """Whether it is part of the mean."""
    errors: ErrorsBySeverity


@dataclass(frozen=True)
class ClassAgreement:
    """How often both models chose the same class."""

    clean: float
    corrupted: Estimate
    per_corruption: Mapping[str, float]


@dataclass(frozen=True)
class Closeness:
    """How near the answers are apart from whether they are right."""

    same_class_clean: Estimate
    """A fraction of the clean images; `ClassAgreement` has that of the corrupted ones."""
    scores_rms_clean: float
    """RMS of the scores' difference over the reference's, both less their mean over the classes."""
    scores_rms_corrupted: float


@dataclass(frozen=True)
class ErrorChange:
    """Errors in percent, their difference in points, and its interval."""

    reference: float
    candidate: float
    delta: float
    lower: float
    upper: float


@dataclass(frozen=True)
class TopFive:
    """Errors where the label is not among the five best classes; the mean is not normalized."""

    clean: ErrorChange
    corrupted: ErrorChange


@dataclass(frozen=True)
class Divergence:
    """KL(reference || candidate) in nats."""

    clean: float
    corrupted: float
    per_corruption: Mapping[str, float]


@dataclass(frozen=True)
class Usage:
    """How much of a codebook is in use."""

    size: int
    used: int
    perplexity: float


@dataclass(frozen=True)
class UsageOfBoth:
    """How much of its codebook each model uses."""

    reference: Usage
    candidate: Usage


@dataclass(frozen=True)
class MarginGroup:
    """Quantiles of the lookup's margin; None where no code fell into the group."""

    count: int
    margins: tuple[float, ...] | None


@dataclass(frozen=True)
class MarginHistogram:
    """Codes by the reference's margin: number i lies in [``edges[i]``, ``edges[i + 1]``).

    Bins are of equal ratio. Only those between the first and the last that hold codes are kept.
    """

    edges: tuple[float, ...]
    agreeing: tuple[int, ...]
    flipped: tuple[int, ...]

    def __post_init__(self) -> None:
        """Require an edge on either side of each number, and something to draw."""
        counts = (*self.agreeing, *self.flipped)
        if not any(counts) or min(counts) < 0:
            raise UsageError("a histogram of margins counts at least one code")
        if len(self.agreeing) != len(self.flipped) or len(self.edges) != len(self.agreeing) + 1:
            raise UsageError("the edges of a histogram of margins do not fit its counts")


@dataclass(frozen=True)
class Margins:
    """The reference's margins, where the codes agree and where they flipped."""

    quantiles: tuple[float, ...]
    agreeing: MarginGroup
    flipped: MarginGroup
    histogram: MarginHistogram | None = field(default=None, metadata=SPARSE)
    """A later addition; older documents lack it."""

    def __post_init__(self) -> None:
        """Require a figure for each quantile in every group, or none at all."""
        for group in (self.agreeing, self.flipped):
            if group.margins is not None and len(group.margins) != len(self.quantiles):
                raise UsageError("the margins do not match the quantiles")

    def median(self, group: MarginGroup) -> float | None:
        """The group's middle margin; None where no code fell into it."""
        return group.margins[len(group.margins) // 2] if group.margins else None


@dataclass(frozen=True)
class CodeAgreement:
    """How often both models chose the same codeword."""

    clean_agreement: float
    corrupted_agreement: Estimate
    per_corruption: Mapping[str, float]
    usage: UsageOfBoth
    margins: Margins | None


@dataclass(frozen=True)
class EngineReport:
    """Which engine ran the float model, and how it was checked."""

    answers: str
    checked_by: str | None  # None: the trusted engine answered itself
    answered: int  # answers by the quick engine alone
    checked: int  # answers that both gave
    ties: int  # of these, decided differently by rounding
    cost: float | None  # processor time of the quick engine over the trusted one's, on the first
    note: str


@dataclass(frozen=True)
class ComparisonBeside:
    """A comparison that is not the bundle's evidence, and why it is not."""

    measured: str
    verdict: ParityOutcome
    reasons: tuple[str, ...]
    why: str
    images: int
    images_available: int
    data: str
    device: str | None
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    mode: str
    clean_error: OfBoth | None
    corruption_error: MeanError | None
    asked: ParityOptions
    budgets: tuple[Judged, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SweepDocument(Document):
    """What every comparison says of its images, its corruptions and its work."""

    verdict: ParityOutcome
    data: str
    corrupted: Corrupted
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    seed: int
    mode: str
    images: int
    images_available: int
    severities_per_image: int
    saved: float
    inferences: int
    inferences_cached: int
    seconds: float
    asked: ParityOptions
    # A later addition; older documents lack it.
    reference_check: ReferenceCheck | None = None
    """None without labels, and where a bundle is compared with its original."""


@dataclass(frozen=True)
class ParityDocument(SweepDocument):
    """One comparison. Errors are None without labels; a summary leaves the details out."""

    SCHEMA: ClassVar = 2

    reasons: tuple[str, ...]
    more_images: int | None
    seen: str
    reference: str
    candidate: str
    same_source: bool
    gates: Gates
    cpu_seconds: float
    clean_error: OfBoth | None
    corruption_error: MeanError | None
    relative_corruption_error: RelativeError | None
    worst: tuple[str, ...]
    top1_agreement: ClassAgreement | None = field(default=None, metadata=_DETAIL)
    kl_nats: Divergence | None = field(default=None, metadata=_DETAIL)
    codes: CodeAgreement | None = field(default=None, metadata=_DETAIL)
    per_corruption: Mapping[str, CorruptionChange] | None = field(default=None, metadata=_DETAIL)
    # Later additions; older documents lack them.
    reference_engine: EngineReport | None = None
    measured: str = ""
    device: str | None = None
    """Where the bundle ran: a device's name, or None for the machine that compared."""
    looks: int = 1
    """All comparisons of this bundle so far, including this one."""
    beside: tuple[ComparisonBeside, ...] = ()
    sides: Sides | None = None
    """Of a comparison with a classifier that edgekit did not make."""
    closeness: Closeness | None = None
    top5_error: TopFive | None = None
    """With labels and at least 100 classes."""
    warnings: tuple[str, ...] = ()
    """What the errors alone do not show."""
    budgets: tuple[Judged, ...] = ()
    """Each gate, with the interval that judged it."""
    judged: Subject = "model"
    """Of a graph, ONNX Runtime gave the answers: they say nothing of the engine built from it."""

    def __post_init__(self) -> None:
        """Require details for every corruption in ``worst``."""
        if self.per_corruption is not None and not set(self.worst) <= set(self.per_corruption):
            raise UsageError("'worst' names a corruption that is not in 'per_corruption'")

    @staticmethod
    def from_dict(value: object, source: str) -> ParityDocument:
        """A whole document or a summary; ``source`` is what error messages call it."""
        return read(ParityDocument, value, source, schema=ParityDocument.SCHEMA, remedy=REMEDY)

    def summary(self) -> dict[str, Any]:
        """The manifest's section."""
        return {name: value for name, value in self.to_dict().items() if name not in DETAILS}

    def beside_evidence(self, why: str) -> ComparisonBeside:
        """The part of it that is kept beside the evidence."""
        names = {one.name for one in dataclasses.fields(ComparisonBeside)} - {"why"}
        return ComparisonBeside(why=why, **{name: getattr(self, name) for name in names})


DETAILS: Final = tuple(
    one.name for one in dataclasses.fields(ParityDocument) if one.metadata.get("detail")
)


def subject(comparison: ParityDocument | ComparisonBeside | None) -> Subject:
    """What a comparison judged; those beside a bundle's evidence are all of the bundle."""
    return comparison.judged if isinstance(comparison, ParityDocument) else "model"


def read_parity(bundle: Bundle) -> ParityDocument | None:
    """The evidence of a bundle: its parity.json, or else the summary in its manifest."""
    return _read(bundle, FILE, "parity", "model")


def read_graph_parity(bundle: Bundle) -> ParityDocument | None:
    """The comparison of the graph from which a bundle's engine is built; it is no evidence of it.

    Only bundles whose engine was pending when they were built have one.
    """
    return _read(bundle, GRAPH_FILE, GRAPH_SECTION, "graph")


def _read(bundle: Bundle, file: str, section: str, judged: Subject) -> ParityDocument | None:
    """A document of a bundle; one of another subject than its name says is refused."""
    if file in bundle.manifest.files:
        source = f"{bundle.path}: {file}"
        value = parse_json((bundle.folder / file).read_bytes(), source)
    else:
        source = f"{bundle.path}: its manifest's section '{section}'"
        value = bundle.manifest.sections.get(section)
        if value is None:
            return None
    document = ParityDocument.from_dict(value, source)
    if document.judged != judged:
        raise DocumentError(f"{source} is a comparison of the {document.judged}, not the {judged}")
    return document
