"""Reads what a training run has left in its folder, finished or not. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgekit.core.documents import DocumentError, part
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, read_regular
from edgekit.core.typed_toml import read_toml
from edgekit.training.config import TrainConfig
from edgekit.training.results import Evaluation

CONFIG: Final = "config.toml"
LOG: Final = "log.jsonl"
_BEST: Final = "best.safetensors"


@dataclass(frozen=True)
class LoggedRun:
    """A run's settings, and the epoch whose weights are its best checkpoint."""

    config: TrainConfig
    epochs: int
    """Epochs that were logged."""
    best_epoch: int
    """From 1; 0 before the first epoch has ended."""
    best: Evaluation | None
    seconds: float
    """Of all logged epochs, without loading and validation."""
    checkpoint: str
    """SHA-256 of the best checkpoint; empty while there is none."""


def is_run(folder: Path) -> bool:
    """Whether `edgekit train` has worked there."""
    # A fine-tuning's folder has a result as well, and settings of another kind.
    return (folder / LOG).is_file() and (folder / CONFIG).is_file()


def read_run(folder: Path) -> LoggedRun:
    """The run in ``folder``."""
    if (folder / "result.json").is_file():
        raise UsageError(f"{folder} is a run of 'edgekit finetune': name runs of 'edgekit train'")
    config = read_toml(folder / CONFIG, TrainConfig)
    epochs = [one for one in _events(folder / LOG) if one.get("event") == "epoch"]
    best = next((one for one in reversed(epochs) if one.get("best") is True), None)
    number, evaluation = 0, None
    if best is not None:
        source = f"{folder / LOG}: its best epoch"
        evaluation = part(Evaluation, best.get("validation"), source)
        number = part(_Epoch, best, source).epoch
    checkpoint = folder / _BEST
    return LoggedRun(
        config=config,
        epochs=len(epochs),
        best_epoch=number,
        best=evaluation,
        seconds=sum(part(_Epoch, one, f"{folder / LOG}: an epoch").seconds for one in epochs),
        checkpoint=file_sha256(checkpoint) if checkpoint.is_file() else "",
    )


@dataclass(frozen=True)
class _Epoch:
    epoch: int
    seconds: float = 0.0


def _events(path: Path) -> list[Mapping[str, Any]]:
    try:
        lines = read_regular(path).decode("utf-8").splitlines()
        events = [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path} is damaged: a line of it is not JSON") from error
    if not all(isinstance(event, Mapping) for event in events):
        raise DocumentError(f"{path} is damaged: a line of it is not an object")
    return events
