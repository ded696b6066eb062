"""A training on a disk that is full says so; PyTorch's own words are 'unexpected pos 64 vs 0'."""

import errno
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import torch

from edgekit.core.errors import EdgekitError
from edgekit.training import run_state
from edgekit.training.journal import Journal
from edgekit.training.run_state import Progress, RunState, save_state


class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_states(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, fill: Any) -> None:
        fill(cast(BinaryIO, Full(room)))

    monkeypatch.setattr(run_state, "write_atomically", write)
    weights = {"a": torch.zeros(3000)}
    sums = torch.zeros(3)
    state = RunState("i", "p", Progress(), weights, weights, {}, {}, sums, sums)
    with pytest.raises(OSError, match="No space left") as found:
        save_state(tmp_path / "state.pt", state)
    assert found.value.errno == errno.ENOSPC


def test_logs(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    journal = Journal.__new__(Journal)
    journal._path, journal._enabled, journal._board = tmp_path / "log.jsonl", True, None
    with pytest.raises(EdgekitError, match=r"log\.jsonl: No space left on device"):
        journal.write("epoch", loss=1.0)
