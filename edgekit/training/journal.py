"""A run's log: one JSON object per line, and curves for TensorBoard where it is installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgekit.core.errors import EdgekitError
from edgekit.training.run_folder import LOG


class Journal:
    """Appends to ``log.jsonl``; a resumed run first drops what was logged after its last state."""

    def __init__(self, folder: Path, keep_bytes: int, enabled: bool) -> None:
        self._path = folder / LOG
        self._enabled = enabled
        self._board: Any = None
        if not enabled:
            return
        try:
            with self._path.open("ab") as stream:
                stream.truncate(min(keep_bytes, self._path.stat().st_size))
        except OSError as error:
            raise EdgekitError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # not a requirement of edgekit
            return
        self._board = SummaryWriter(folder / "tensorboard")

    def write(self, event: str, **values: Any) -> None:
        """Append one line."""
        if self._enabled:
            line = json.dumps({"event": event, **values}, ensure_ascii=False)
            try:
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(line + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
            except OSError as error:
                raise EdgekitError(f"cannot write {self._path}: {error.strerror}") from error

    def figures(self, step: int, values: dict[str, float | None]) -> None:
        """Add a point to every curve in TensorBoard."""
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
            self._board.flush()

    def length(self) -> int:
        """Bytes written so far."""
        return self._path.stat().st_size if self._enabled else 0

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
