"""Keeps OpenCV, and the FFmpeg in it, from writing to standard error beside our own message.

Both describe a file that they cannot read in lines of their own form, before the caller knows that
there is anything wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FFMPEG: Final = "OPENCV_FFMPEG_LOGLEVEL"  # read once, by the first video that is opened
_NOTHING: Final = "-8"  # FFmpeg's AV_LOG_QUIET


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """OpenCV's log is silent inside; whoever set one of its variables gets what they asked for."""
    from cv2.utils import logging

    os.environ.setdefault(_FFMPEG, _NOTHING)
    before = logging.getLogLevel()
    if "OPENCV_LOG_LEVEL" not in os.environ:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
