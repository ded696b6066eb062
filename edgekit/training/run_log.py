"""Reads what a training run has left in its folder, finished or not. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.core.documents import DocumentError, part
from edgekit.core.errors import UsageError
from edgekit.core.files import file_sha256, read_regular
from edgekit.core.typed_toml import read_toml
from edgekit.training.config import TrainConfig
from edgekit.training.results import Evaluation
from edgekit.training.run_folder import BEST, CONFIG, LOG


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
    """Whether `edgekit train` or `edgekit finetune` has worked there."""
    return (folder / LOG).is_file() and (folder / CONFIG).is_file()


def read_run(folder: Path) -> LoggedRun:
    """The run of `edgekit train` in ``folder``."""
    config = read_toml(folder / CONFIG, TrainConfig)
    found = logged_events(folder / LOG)
    number, validation = best_of(found, folder / LOG)
    source = f"{folder / LOG}: its best epoch"
    return LoggedRun(
        config=config,
        epochs=len(epochs_of(found)),
        best_epoch=number,
        best=part(Evaluation, validation, source) if number else None,
        seconds=sum(
            part(_Epoch, one, f"{folder / LOG}: an epoch").seconds for one in epochs_of(found)
        ),
        checkpoint=hash_of(folder / BEST),
    )


@dataclass(frozen=True)
class _Epoch:
    epoch: int
    seconds: float = 0.0


Event = Mapping[str, Any]


def epochs_of(events: Sequence[Event]) -> list[Event]:
    """The epochs that have ended."""
    return [one for one in events if one.get("event") == "epoch"]


def best_of(events: Sequence[Event], log: Path) -> tuple[int, Any]:
    """The best epoch's number, from 1, and its validation; 0 while no epoch was best."""
    best = next((one for one in reversed(epochs_of(events)) if one.get("best") is True), None)
    if best is None:
        return 0, None
    return part(_Epoch, best, f"{log}: its best epoch").epoch, best.get("validation")


def hash_of(file: Path) -> str:
    """SHA-256; empty without the file."""
    return file_sha256(file) if file.is_file() else ""


def logged_events(path: Path) -> list[Event]:
    """All lines of a run's log."""
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
