"""Finds the files that ship with edgekit but are not Python: recipes, descriptors, libraries.

There are three possible places: inside edgekit (a regular install), the project's top level (a
source checkout), and the install location of an editable build, whose Python files stay in
the checkout while its compiled files do not.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from edgekit.core.errors import EdgekitError

_PACKAGE = Path(__file__).resolve().parents[1]


def find_resource(name: str) -> Path | None:
    """The file or folder ``name`` (such as ``"_native/libedgekit_codebook.so"``), or None."""
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    try:
        installed = Path(str(metadata.distribution("edgekit").locate_file(f"edgekit/{name}")))
    except metadata.PackageNotFoundError:
        return None
    return installed if installed.exists() else None


def resource(name: str) -> Path:
    """Like `find_resource`, but a missing file is an error: the installation is damaged."""
    path = find_resource(name)
    if path is None:
        raise EdgekitError(f"{name} is missing from this installation: run 'pip install edgekit'")
    return path
