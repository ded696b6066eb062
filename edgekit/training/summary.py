"""An epoch in words and as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.training.config import METHODS
from edgekit.training.results import Evaluation


def epoch_line(record: Mapping[str, Any], validation: Evaluation, improved: bool) -> str:
    """One line about an epoch's training and validation."""
    parts = [f"epoch {record['epoch']}: loss {record['loss']:.3f}"]
    parts.append(f"training error {100 * record['error']:.1f}%")
    if "perplexity" in record:
        parts.append(f"{record['used_codes']} codes used (perplexity {record['perplexity']:.0f})")
    parts.append(describe(validation))
    return ", ".join(parts) + (" *" if improved else "")


def describe(evaluation: Evaluation) -> str:
    """An evaluation in a few words."""
    text = f"validation error {100 * evaluation.clean_error:.1f}% clean"
    if evaluation.mean_corruption_error is not None:
        text += f", {100 * evaluation.mean_corruption_error:.1f}% corrupted"
    if evaluation.code_agreement is not None:
        text += f", same code {100 * evaluation.code_agreement:.0f}%"
    return text


def curves(record: Mapping[str, Any], validation: Evaluation) -> dict[str, float | None]:
    """An epoch's numbers by their names in TensorBoard."""
    names = ("loss", "classification", "codebook", "commitment", *METHODS, "error", "lr")
    figures: dict[str, float | None] = {f"train/{name}": record.get(name) for name in names}
    figures["codes/used"] = record.get("used_codes")
    figures["codes/perplexity"] = record.get("perplexity")
    figures["codes/agreement"] = validation.code_agreement
    figures["validation/clean_error"] = validation.clean_error
    figures["validation/mean_corruption_error"] = validation.mean_corruption_error
    return figures


def result_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A `TrainResult` as a table of two columns."""
    validation = result["validation"]
    validated_on = ", ".join(result["validated_on"])
    rows = [
        ("best checkpoint", str(result["best"])),
        ("last checkpoint", str(result["last"])),
        ("best epoch", f"{result['best_epoch']} of {result['epochs']}"),
        ("seen in training", ", ".join(result["seen"]) or "clean images only"),
        ("validation images", str(validation["images"])),
        ("clean error", f"{100 * validation['clean_error']:.1f}%"),
    ]
    if validation["mean_corruption_error"] is not None:
        text = f"{100 * validation['mean_corruption_error']:.1f}% (unnormalized; {validated_on})"
        rows.append(("mean corruption error", text))
    if validation["code_perplexity"] is not None:
        text = f"{validation['used_codes']} (perplexity {validation['code_perplexity']:.0f})"
        rows.append(("codes used", text))
    if validation["code_agreement"] is not None:
        text = f"{100 * validation['code_agreement']:.1f}% of corrupted images"
        rows.append(("same code as the clean image", text))
    return rows
