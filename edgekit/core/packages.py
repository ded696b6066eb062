"""Checks for optional packages before any work is done, without importing them."""

from __future__ import annotations

import functools
import importlib.util
import json
import shlex
import urllib.parse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from edgekit.core.errors import ToolchainMissing

TRAIN: Final = ("torch", "safetensors", "scipy", "cv2")
PARITY: Final = ("onnx", "onnxruntime", "scipy", "cv2")
"""The extra [parity]: packages that compare two classifiers' files."""
BUILD: Final = (*TRAIN, "onnx", "onnxscript", "onnxruntime", "nncf")
"""Packages that turn a checkpoint into an INT8 graph."""


def require(names: Sequence[str], task: str, extra: str = "build") -> None:
    """Refuse ``task`` in one line if a package of the ``extra`` is missing."""
    for name in names:
        if not _installed(name):
            raise missing(name, task, extra)


def missing(name: str, task: str, extra: str = "build") -> ToolchainMissing:
    """The error that ``task`` needs the package ``name``, and what to run."""
    return ToolchainMissing(
        f"{task} needs {name}, which is not installed: run {install_command(extra)}"
    )


def install_command(extra: str) -> str:
    """The pip command that adds an extra to this edgekit, from where it was installed from."""
    editable, origin = _origin()
    return f"pip install {'--editable ' if editable else ''}{shlex.quote(f'{origin}[{extra}]')}"


def checkout() -> Path | None:
    """The folder that pip installed this edgekit from, in place or not."""
    origin = Path(_origin()[1])
    return origin if origin.is_absolute() and origin.is_dir() else None


@functools.cache
def _origin() -> tuple[bool, str]:
    """Whether pip installed it editable, and the folder or wheel that it came from.

    pip records both (PEP 610), unless the package came from an index.
    """
    index = False, "edgekit"
    try:
        text = metadata.distribution("edgekit").read_text("direct_url.json")
        record: Any = json.loads(text or "{}")
        url = urllib.parse.urlsplit(record["url"])
        path = urllib.parse.unquote(url.path)
        if url.scheme != "file" or not path.isprintable() or not Path(path).exists():
            return index
        return bool(record.get("dir_info", {}).get("editable")), path
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return index


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # hidden, or half removed
        return False
