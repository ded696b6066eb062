"""Reads what a fine-tuning has left in its folder, finished or not. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.documents import part
from edgekit.core.typed_toml import read_toml
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.results import Validation
from edgekit.training.run_folder import CONFIG, LOG
from edgekit.training.run_log import best_of, epochs_of, hash_of, logged_events

INT8: Final = "model-int8.onnx"


@dataclass(frozen=True)
class LoggedFinetune:
    """A fine-tuning's settings, and the epoch that it takes."""

    config: FinetuneConfig
    epochs: int
    """Epochs that were logged."""
    best_epoch: int
    """From 1; 0 is calibration alone."""
    best: Validation | None
    """None before calibration was validated."""
    validated_on: tuple[str, ...] | None
    """The corruptions; None if the log does not say."""
    graph: str
    """SHA-256 of the INT8 graph; empty while there is none."""


@dataclass(frozen=True)
class _Start:
    validated_on: tuple[str, ...] | None = None


def read_finetune(folder: Path) -> LoggedFinetune:
    """The run in ``folder``."""
    config = read_toml(folder / CONFIG, FinetuneConfig)
    log = folder / LOG
    events = logged_events(log)
    number, validation = best_of(events, log)
    best = part(Validation, validation, f"{log}: its best epoch") if number else None
    validated_on = None
    start = next((one for one in events if one.get("event") == "start"), None)
    if start is not None:
        validated_on = part(_Start, start, f"{log}: its start").validated_on
        if not number:  # no epoch was better than calibration
            best = part(Validation, start.get("calibrated"), f"{log}: what calibration achieved")
    return LoggedFinetune(
        config=config,
        epochs=len(epochs_of(events)),
        best_epoch=number,
        best=best,
        validated_on=validated_on,
        graph=hash_of(folder / INT8),
    )
