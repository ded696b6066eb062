"""A finished run as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.quantize.finetune import FinetuneResult


def result_rows(result: FinetuneResult) -> list[tuple[str, str, str, str]]:
    """Figures of the float, the calibrated and the fine-tuned model on the validation images."""
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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
