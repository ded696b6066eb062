"""What OpenCV and FFmpeg would write about a video that they cannot read stays unsaid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.data.opencv_log import quiet_opencv

_OPEN = """
import sys
from edgekit.core.errors import UsageError
from edgekit.field.sources import open_source
for name in sys.argv[1:]:
    try:
        list(open_source(name, follow=False))
    except UsageError as error:
        print(error, file=sys.stderr)
"""


def test_only_our_own_line_says_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film" * 100)
    names = [str(tmp_path / "film.mp4"), "camera:9876"]
    # In a process of its own: FFmpeg asks only once how much to say.
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, *names], capture_output=True, text=True, check=True
    )
    said = [f"OpenCV cannot open {name}: see whether a player does" for name in names]
    assert done.stderr.splitlines() == said


def test_the_programs_own_level_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from cv2.utils import logging

    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    before = logging.getLogLevel()
    with quiet_opencv():
        assert logging.getLogLevel() == logging.LOG_LEVEL_SILENT
    assert logging.getLogLevel() == before
    monkeypatch.setenv("OPENCV_LOG_LEVEL", "DEBUG")
    with quiet_opencv():
        assert logging.getLogLevel() == before
