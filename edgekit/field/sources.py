"""Where a model's images come from: files, a growing folder, a pipe, a video or camera."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.data.folder import EXTENSIONS

if TYPE_CHECKING:
    from edgekit.runtime.model import Item

T = TypeVar("T")

VIDEOS: Final = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
CAMERA: Final = "camera:"
STDIN: Final = "-"
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
    return (line for line in map(str.strip, sys.stdin) if line)


def _listed(path: Path) -> Iterator[Item]:
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
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
    stop = None if most is None else every * most
    for number, frame in enumerate(islice(_frames(name), stop)):
        if number % every == 0:
            yield f"{name}#{number}", frame


def _frames(name: str) -> Iterator[Item]:
    capture = _open(name)
    try:
        while True:
            good, frame = capture.read()
            if not good:
                return
            yield frame[:, :, ::-1].copy()  # OpenCV's order is BGR
    finally:
        capture.release()


def _open(name: str) -> Any:
    camera = name.removeprefix(CAMERA)
    source = int(camera) if name != camera and camera.isdecimal() else camera
    capture = _opencv().VideoCapture(source)
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
