"""Processes that train together also end together, with one line that says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The first process waits for the second, which fails; in its own way, or killed.
SCRIPT = """
import os
import signal
import sys

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.training.distributed import join_world

try:
    with join_world("cpu") as world:
        if world.rank == 1 and sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if world.rank == 1:
            raise UsageError("its own mistake")
        world.wait()
except EdgekitError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.parametrize(
    ("failure", "line"),
    [("raised", "its own mistake"), ("killed", "another of the 2 processes was killed")],
)
def test_one_line_says_why_all_end(tmp_path: Path, failure: str, line: str) -> None:
    (tmp_path / "fails.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "fails.py"), failure],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    ours = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert len(ours) == 1, done.stderr
    assert line in ours[0]
