"""Where a model's images come from: files, a growing folder, a pipe, a video or camera."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError, one_line
from edgekit.core.files import read_regular
from edgekit.data.folder import EXTENSIONS
from edgekit.data.opencv_log import quiet_opencv

if TYPE_CHECKING:
    from edgekit.runtime.model import Item

T = TypeVar("T")

VIDEOS: Final = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
CAMERA: Final = "camera:"
STDIN: Final = "-"
_CAMERA_DIGITS: Final = 4  # OpenCV crashes on some numbers that no device has
_LONGEST_LINE: Final = 1 << 20
"""Characters; a code and a margin for every position of a feature map fit many times."""
_STREAMS: Final = ("rtsp://", "http://", "https://")
_SECONDS: Final = 1.0  # between two looks at a folder
_UNTOUCHED: Final = 1.0  # seconds after which a file counts as written


def open_source(name: str, *, follow: bool, every: int = 1) -> Iterator[Item]:
    """Every ``every``-th image of ``name``; with ``follow``, a folder's new files as they come."""
    return islice(_all(name, follow), 0, None, every)


def _all(name: str, follow: bool) -> Iterator[Item]:
    if name == STDIN:
        return stdin_lines()
    if has_frames(name):
        return _frames(name)
    path = Path(name)
    if path.is_dir():
        return _folder(path, follow, time.time, time.sleep)
    if path.suffix.lower() in EXTENSIONS:
        return iter([path])
    if path.is_file():
        return _listed(path)
    raise UsageError(
        f"nothing to watch at {name}: give a folder, an image, a list of files, a video, "
        "camera:0, or - for names or predictions on standard input"
    )


def stdin_lines() -> Iterator[str]:
    """What standard input brings, as it comes, but for empty lines."""
    if sys.stdin is None:
        raise UsageError("standard input is closed: pipe file names or predictions into it")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a file's name may be no UTF-8
    number = 0
    while line := sys.stdin.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise UsageError(
                f"line {number} of standard input has more than {_LONGEST_LINE:,} characters: "
                "write one file name or prediction a line"
            )
        if text := line.strip():
            yield text


def _listed(path: Path) -> Iterator[Item]:
    try:
        text = read_regular(path).decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    for line in text.splitlines():
        if line.strip():
            yield path.parent / line.strip()


def _folder(
    path: Path, follow: bool, now: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[Item]:
    """Its images by name; then new ones, once nobody has written to them for a second."""
    done: set[Path] = set()
    while True:
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        done &= set(files)  # what is gone may come again
        for file in files:
            if file in done:
                continue
            try:
                age = now() - file.stat().st_mtime
            except OSError:  # removed since
                continue
            if follow and 0 <= age < _UNTOUCHED:
                continue
            done.add(file)
            yield file
        if not follow:
            return
        sleep(_SECONDS)


def has_frames(name: str) -> bool:
    """Whether OpenCV is to open it: a video, a camera or a stream."""
    return is_live(name) or Path(name).suffix.lower() in VIDEOS


def is_live(name: str) -> bool:
    """Whether its frames need not end: a camera or a stream."""
    return name.startswith((CAMERA, *_STREAMS))


def check_frames(name: str) -> None:
    """Refuse a video that is missing, that OpenCV cannot open, or where there is no OpenCV."""
    if is_live(name):
        _opencv()
        return
    if not Path(name).exists():
        raise UsageError(f"{name} does not exist: name a video, a camera (camera:0) or images")
    _open(name).release()


def named_frames(name: str, every: int, most: int | None) -> Iterator[tuple[str, Item]]:
    """``NAME#NUMBER`` and pixels of every ``every``-th frame, counted from 0; ``most`` of them."""
    numbered = ((f"{name}#{number}", frame) for number, frame in enumerate(_frames(name)))
    return islice(islice(numbered, 0, None, every), most)


def _frames(name: str) -> Iterator[Item]:
    capture = _open(name)
    import cv2

    try:
        while True:
            with quiet_opencv():
                good, frame = capture.read()
            if not good or frame is None:
                return
            yield _rgb(frame)
    except cv2.error as why:
        raise EdgekitError(f"OpenCV cannot go on with {name}: {one_line(why)}") from why
    finally:
        capture.release()


def _rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """OpenCV's gray, BGR or BGRA as RGB; anything else as it is, for the model to refuse."""
    if frame.ndim == 2:
        frame = frame[:, :, np.newaxis]
    if frame.ndim == 3 and frame.shape[2] == 1:
        return frame.repeat(3, axis=2)
    return frame[:, :, 2::-1].copy() if frame.ndim == 3 and frame.shape[2] in (3, 4) else frame


def _open(name: str) -> Any:
    if not is_live(name) and not Path(name).is_file():
        raise UsageError(f"{name} is no regular file: name a video, a camera (camera:0) or images")
    camera = name.removeprefix(CAMERA)
    source: int | str = camera
    if name != camera and camera.isdecimal():
        if len(camera) > _CAMERA_DIGITS:
            raise UsageError(f"there is no {name}: count cameras from camera:0")
        source = int(camera)
    cv2 = _opencv()
    with quiet_opencv():
        capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise UsageError(f"OpenCV cannot open {name}: see whether a player does")
    return capture


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ToolchainMissing(
            "videos and cameras need OpenCV, which is not installed: run "
            "pip install opencv-python-headless"
        ) from error
    return cv2
