"""What a run needs to resume after a kill, in one file that is replaced atomically.

A state file is untrusted input like any checkpoint: it is read with weights_only, so nothing in
it can be executed.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.files import write_atomically
from edgekit.training.run_folder import STATE

# What reading raises for a file that `save_state` did not write, or that is damaged.
_DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, KeyError, ValueError)


@dataclass
class Progress:
    """How far a run got: plain numbers, saved as JSON. ``batch`` batches of ``epoch`` are done."""

    phase: int = 0
    epoch: int = 0  # within the phase
    batch: int = 0
    step: int = 0  # within the phase
    quantizes: bool = False
    best: float | None = None  # lowest validation criterion of any epoch
    best_epoch: int = -1  # counted over all phases
    best_validation: dict[str, Any] = field(default_factory=dict)
    stale_epochs: int = 0  # since the phase last improved on its best
    phase_best: float | None = None
    stopped_early: bool = False
    finished: bool = False
    skipped_images: int = 0
    log_bytes: int = 0  # length of the log when this was saved


@dataclass
class RunState:
    """A run's tensors and numbers at one step."""

    identity: str  # of settings, data and starting weights
    provenance: str  # of code, libraries and arithmetic
    progress: Progress
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    usage: Tensor  # of codewords, since the epoch began
    sums: Tensor  # of the losses, since the epoch began


def save_state(path: Path, state: RunState) -> None:
    """Replace the file ``path``."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    fields["progress"] = json.dumps(dataclasses.asdict(state.progress))

    def write(stream: BinaryIO) -> None:
        target = _Target(stream)
        try:
            torch.save(fields, cast(BinaryIO, target))
        except RuntimeError as error:
            raise target.failure or error from error

    write_atomically(path, write)


class _Target:
    """A stream that remembers why it failed: PyTorch says of a full disk 'unexpected pos'."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._stream.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._stream.flush()


def resumable(
    out: Path, identity: str, provenance: str, console: Console, restart_does: str
) -> RunState | None:
    """The state that an earlier call left in ``out``, if it is this run's.

    ``restart_does`` describes --restart in messages: "start over".
    """
    state = load_state(out / STATE)
    if state is None:
        return None
    if state.identity != identity:
        raise UsageError(
            f"{out} holds a run on other data or other starting weights: choose another "
            f"--out, or add --restart to {restart_does}"
        )
    if state.progress.finished:
        console.info(f"{out} holds this run, which is finished")
    elif state.provenance != provenance:
        console.warn(
            "edgekit, a library or the number of threads has changed since this run began: "
            "it resumes, but its weights will differ in rounding from an uninterrupted run's"
        )
    return state


def load_state(path: Path) -> RunState | None:
    """The saved state, or None if there is none."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream:
            fields = torch.load(stream, map_location="cpu", weights_only=True)
        fields["progress"] = Progress(**json.loads(fields["progress"]))
        return RunState(**fields)
    except _DAMAGED as error:
        raise UsageError(
            f"{path} is damaged, or from another edgekit: start over with --restart"
        ) from error
