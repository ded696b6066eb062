"""Reads what a fine-tuning has left in its folder, finished or not. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.documents import part
from edgekit.core.typed_toml import read_toml
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.results import Validation
from edgekit.training.run_log import CONFIG, LOG, best_of, epochs_of, hash_of, logged_events

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
    graph: str
    """SHA-256 of the INT8 graph; empty while there is none."""


def is_finetune(folder: Path) -> bool:
    """Whether a run, as `is_run` knows them, is one of `edgekit finetune`."""
    start = logged_events(folder / LOG)[:1]
    return any("calibrated" in event for event in start) or (folder / INT8).is_file()


def read_finetune(folder: Path) -> LoggedFinetune:
    """The run in ``folder``."""
    config = read_toml(folder / CONFIG, FinetuneConfig)
    log = folder / LOG
    events = logged_events(log)
    number, validation = best_of(events, log)
    if not number:  # no epoch was better than calibration
        validation = next((one["calibrated"] for one in events if "calibrated" in one), None)
    return LoggedFinetune(
        config=config,
        epochs=len(epochs_of(events)),
        best_epoch=number,
        best=None if validation is None else part(Validation, validation, f"{log}: its best epoch"),
        graph=hash_of(folder / INT8),
    )
