"""What calibration, its guard, accuracy control and the ranking of layers report.

Apart from what does the work, which imports onnx.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from edgekit.core.documents import INLINE, NULLABLE, Document, fields_of
from edgekit.metrics.intervals import Interval
from edgekit.metrics.verdicts import Outcome
from edgekit.quantize.metric import Metric

_DIFFERENT_AT_MOST: Final = 1 / 3  # of the top-1 answers
_CLEAN_DIFFERENT_AT_MOST: Final = 1 / 2  # half as many answers, so a wider limit
_NAMED = 5  # layers that a message lists


@dataclass(frozen=True)
class Closeness:
    """How near an INT8 graph's answers are to the float model's."""

    DERIVED: ClassVar = ("passed",)

    views: int
    logits_rms: float = field(metadata=NULLABLE)
    """Of the difference, relative to the RMS of the float model's logits."""
    top1_equal: float  # share of the views
    codes_equal: float | None  # share of the codes; None without a codebook
    clean_top1_equal: float | None = None  # share of the clean views, where it is known which

    @property
    def passed(self) -> bool:
        """Whether this is still the same model, apart from rounding.

        Clean views are judged alone as well: ranges that strongly corrupted images made wide can
        spoil them and leave the corrupted ones as they were.
        """
        different = round((1 - self.top1_equal) * self.views)
        most = _DIFFERENT_AT_MOST * self.views
        clean_different = 0.0 if self.clean_top1_equal is None else 1 - self.clean_top1_equal
        return (
            bool(math.isfinite(self.logits_rms))
            and different <= most
            and clean_different <= _CLEAN_DIFFERENT_AT_MOST
        )

    def describe(self) -> str:
        """One line for the user."""
        clean = self.clean_top1_equal
        of_clean = "" if clean is None else f" ({clean:.1%} of the clean ones)"
        codes = "" if self.codes_equal is None else f", {self.codes_equal:.1%} of codes"
        return (
            f"on {self.views} held-out views {self.top1_equal:.1%} of top-1 answers{of_clean}"
            f"{codes} equal to float's, logits off by {self.logits_rms:.3g} of their RMS"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return fields_of(self)


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration cost and covered."""

    images: int
    seconds: float
    peak_mb: float  # of this process, so far
    quantized: int  # products and convolutions with 8-bit inputs
    kept_float: int  # those with float inputs
    not_quantized: tuple[str, ...] = ()  # the names of the latter's weights
    rounded: int = 0  # convolutions whose weights were not all rounded to the nearest level
    corrected: int = 0  # layers whose biases were corrected
    held_back: str = ""  # which corrections were not kept, in words

    def message(self) -> str:
        """One line for the user."""
        names = ", ".join(self.not_quantized[:_NAMED])
        more = len(self.not_quantized) - _NAMED
        listed = f" ({names}{f' and {more} more' if more > 0 else ''})" if names else ""
        held_back = f"; {self.held_back}" if self.held_back else ""
        return (
            f"calibrated on {self.images} images in {self.seconds:.0f} s, peak memory "
            f"{self.peak_mb / 1000:.1f} GB: {self.quantized} convolutions and products in INT8, "
            f"{self.kept_float} in float{listed}{held_back}"
        )


@dataclass(frozen=True)
class Controlled:
    """What accuracy control did."""

    metric: Metric
    max_drop: float  # points
    before: Interval  # the loss with all layers in INT8, points
    after: Interval
    outcome: Outcome  # of ``after`` against ``max_drop``
    reverted: tuple[str, ...]  # by the names of their weights, the most harmful first
    nodes: tuple[str, ...]  # the same by node
    images: int
    variants: int
    evaluations: int
    seconds: float

    def message(self) -> str:
        """One line for the user."""
        names = ", ".join(self.reverted) or "none"
        sure = "" if self.outcome == "pass" else f" ({self.outcome} on {self.images} images)"
        return (
            f"accuracy control: {self.metric} lost {self.before.estimate:.2f} points, now "
            f"{self.after.estimate:.2f} [{self.after.lower:.2f}, {self.after.upper:.2f}] of at "
            f"most {self.max_drop:g}{sure}; {len(self.nodes)} layers back in float: {names}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return fields_of(self)


@dataclass(frozen=True)
class Calibrated(Document):
    """The files that a calibration wrote, and how good the graph is."""

    SCHEMA: ClassVar = 1

    onnx: str
    listing: str
    """The file that lists the calibration images."""
    message: str
    """The calibration in one line."""
    guard: Closeness
    control: Controlled | None
    """Only with --max-drop."""
    report: CalibrationReport = field(metadata=INLINE)


@dataclass(frozen=True)
class Difference:
    """How a graph's answers differ from the float model's, on a probe."""

    kl: float  # nats per variant, mean over clean and corrupted
    margin_change: float | None
    """RMS change of the lookup's margin: the score of the float model's codeword minus its best
    rival's, in units of scores; None without a codebook."""
    code_clean: float | None  # share of equal codes; None without a codebook
    code_corrupted: Interval | None
    code_all: Interval | None  # over all variants, clean and corrupted
    clean_error: float | None  # percent; None without labels
    corruption_error: float | None  # percent, unnormalized mean
    clean_change: Interval | None  # candidate minus reference, points
    corruption_change: Interval | None

    def drop(self, metric: str) -> Interval | None:
        """The loss in points, positive if worse; None where the metric cannot be computed."""
        if metric == "corruption-error":
            return self.corruption_change
        if self.code_all is None:
            return None
        code = self.code_all
        return Interval(
            100 * (1 - code.estimate),
            100 * (1 - code.upper),
            100 * (1 - code.lower),
            code.images,
        )


@dataclass(frozen=True)
class LayerLoss:
    """The effect of rounding one layer alone."""

    name: str  # of the node
    weights: str  # the name of its weights, "" for an addition
    operation: str
    clipped: float  # share of its input's values that lie outside the INT8 range
    difference: Difference

    @property
    def harm(self) -> float:
        """What layers are ranked by: the change of the lookup's margin, or the divergence.

        With a codebook, the divergence over a few hundred images comes from the few whose code
        happened to flip, and ranks layers by luck; margins move in all images.
        """
        moved = self.difference.margin_change
        return self.difference.kl if moved is None else moved


@dataclass(frozen=True)
class CodebookUse:
    """How many codewords are chosen on the probe."""

    size: int
    used_by_float: int
    used_by_int8: int


@dataclass(frozen=True)
class Sensitivity(Document):
    """All layers, the most harmful first."""

    SCHEMA: ClassVar = 1

    layers: tuple[LayerLoss, ...]
    whole: Difference  # of the graph with all of them in INT8
    codes: CodebookUse | None
    not_quantized: tuple[str, ...]  # convolutions and products that NNCF left in float
    images: int
    variants: int
    seconds: float

    def ranking(self) -> list[str]:
        """Node names, the most harmful first."""
        return [layer.name for layer in self.layers]

    def messages(self) -> list[str]:
        """What the table of layers does not show, one line each."""
        lines = [
            f"all layers: KL {self.whole.kl:.4f}, codes equal "
            f"{interval_text(self.whole.code_all, 100, 1).lstrip('+')} %, corruption error "
            f"{interval_text(self.whole.corruption_change)} points; {self.images} images in "
            f"{self.variants} variants, {self.seconds:.0f} s"
        ]
        if self.codes is not None:
            dead = self.codes.size - self.codes.used_by_float
            lines.append(
                f"codes: {dead} of {self.codes.size} are dead here (the float model never chooses "
                f"them); INT8 uses {self.codes.used_by_int8}"
            )
        if self.not_quantized:
            lines.append(f"not quantized: {', '.join(self.not_quantized)}")
        return lines


def interval_text(interval: Interval | None, scale: float = 1.0, digits: int = 2) -> str:
    """``+0.31 [-0.20, 0.85]``, or a dash."""
    if interval is None:
        return "-"
    values = [scale * value for value in (interval.estimate, interval.lower, interval.upper)]
    return f"{values[0]:+.{digits}f} [{values[1]:.{digits}f}, {values[2]:.{digits}f}]"
