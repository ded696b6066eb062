"""Checks for optional packages before any work is done, without importing them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Final

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
        f"{task} needs {name}, which is not installed: run pip install 'edgekit[{extra}]'"
    )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # hidden, or half removed
        return False
