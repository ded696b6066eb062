"""What fine-tuning reports. Apart from what trains, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgekit.core.documents import Document, fields_of
from edgekit.quantize.qat.record import FinetuneRecord
from edgekit.quantize.results import Closeness


@dataclass(frozen=True)
class Validation:
    """Errors as fractions in [0, 1]; the ``float_`` ones are the original's on the same images.

    The mean corruption error is `Evaluation`'s.
    """

    images: int
    clean_error: float
    float_clean_error: float
    mean_corruption_error: float | None  # None without corruptions
    float_mean_corruption_error: float | None
    code_agreement_clean: float | None  # fraction of features with the float model's codeword
    code_agreement_corrupted: float | None
    top1_agreement: float  # fraction of views with the float model's class

    @property
    def criterion(self) -> tuple[float, float]:
        """What early stopping minimizes: the error in excess of the float model's, then flips.

        An error below the float model's is luck with these images and does not count: otherwise
        the first lucky epoch would win.
        """
        ours, original = self.mean_corruption_error, self.float_mean_corruption_error
        if ours is None or original is None:
            ours, original = self.clean_error, self.float_clean_error
        return max(0.0, ours - original), 1 - self.code_agreement

    @property
    def code_agreement(self) -> float:
        """On corrupted images, or on clean ones if there are no others; 1 without codes."""
        agreement = self.code_agreement_corrupted
        agreement = self.code_agreement_clean if agreement is None else agreement
        return 1.0 if agreement is None else agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return fields_of(self)

    def describe(self) -> str:
        """One line, in percent."""
        text = f"validation error {_pair(self.clean_error, self.float_clean_error)} clean"
        if self.mean_corruption_error is not None:
            assert self.float_mean_corruption_error is not None
            pair = _pair(self.mean_corruption_error, self.float_mean_corruption_error)
            text += f", {pair} corrupted"
        if self.code_agreement_clean is not None:
            text += f", same code {100 * self.code_agreement_clean:.1f}% clean"
        if self.code_agreement_corrupted is not None:
            text += f", {100 * self.code_agreement_corrupted:.1f}% corrupted"
        return text


@dataclass(frozen=True)
class Proof:
    """What was compared, and how closely it agreed."""

    images: int
    pairs: int  # Q/DQ pairs of activations
    values: int  # 8-bit values that both computed
    edge_values: int  # those on the edge between two levels that rounded the other way
    codes: int
    different_codes: int  # ties up to rounding
    logits_error: float  # largest difference over the largest magnitude

    def describe(self) -> str:
        """One line for the user."""
        text = (
            f"the INT8 graph is the network that was trained: on {self.images} images "
            f"{self.values - self.edge_values} of {self.values} 8-bit values are identical "
            f"({self.edge_values} on a rounding edge), logits to {self.logits_error:.0e}"
        )
        if self.codes:
            text += f", {self.codes - self.different_codes} of {self.codes} codes identical"
        return text


@dataclass(frozen=True)
class FinetuneResult(Document):
    """The files of a finished run, and its results on the validation images."""

    SCHEMA: ClassVar = 1

    out: Path
    onnx: Path  # the INT8 graph, for `edgekit build --quantized`
    parameters: Path  # learned by the best epoch, before rounding, relative to the calibration
    best_epoch: int  # from 1; 0 is calibration alone
    epochs: int
    stopped_early: bool
    calibrated: Validation  # before fine-tuning
    finetuned: Validation
    proof: Proof
    guard: Closeness
    record: FinetuneRecord
    skipped_images: int
    seconds: float  # of this call: almost none if the run was already finished


def result_rows(result: FinetuneResult) -> list[tuple[str, str, str, str]]:
    """Validation results of the float, the calibrated and the fine-tuned model."""
    before, after = result.calibrated, result.finetuned
    rows = [
        (
            "clean error %",
            _percent(after.float_clean_error),
            _percent(before.clean_error),
            _percent(after.clean_error),
        ),
        (
            "mean corruption error %",
            _percent(after.float_mean_corruption_error),
            _percent(before.mean_corruption_error),
            _percent(after.mean_corruption_error),
        ),
        (
            "same code, clean %",
            "",
            _percent(before.code_agreement_clean),
            _percent(after.code_agreement_clean),
        ),
        (
            "same code, corrupted %",
            "",
            _percent(before.code_agreement_corrupted),
            _percent(after.code_agreement_corrupted),
        ),
        ("same class %", "", _percent(before.top1_agreement), _percent(after.top1_agreement)),
        ("best epoch", "", "0", f"{result.best_epoch} of {result.epochs}"),
    ]
    return [row for row in rows if any(cell not in ("", "-") for cell in row[1:])]


def _pair(ours: float, original: float) -> str:
    return f"{100 * ours:.2f}% (float {100 * original:.2f}%)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
