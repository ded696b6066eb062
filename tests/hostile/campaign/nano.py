"""A device to deploy to, in a folder: its ssh, its Python and what is on it are the case's own.

The agent, the copy, the checks, the exchange and the self-test are real. What pip would install is
there already, so that an environment is made in a moment.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_SSH = """#!/bin/sh
for command; do :; done
exec sh -c "$command"
"""
_PYTHON = """#!/bin/sh
export PYTHONPATH={path}
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") sleep 0.3 ;;
*) exec {python} "$@" ;;
esac
"""


def with_device(folder: Path) -> str:
    """Write the device into ``folder``, if there is none; its name in the registry."""
    network, root = folder / "network", Path(__file__).parents[3]
    if not network.exists():
        network.mkdir()
        path = os.pathsep.join(filter(None, [str(root), *sys.path]))
        for name, text in (
            ("ssh", _SSH),
            ("python", _PYTHON.format(path=path, python=sys.executable)),
        ):
            (network / name).write_text(text)
            (network / name).chmod(0o755)
    entry = {
        "name": "nano",
        "host": "nano@here",
        "python": str(network / "python"),
        "folder": str(folder / "nano"),
    }
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
    (folder / "devices.toml").write_text(f"[[device]]\n{lines}\n")
    return "nano"


def on_device(folder: Path, name: str) -> dict[str, bytes]:
    """A bundle there, what it was recorded as, and what is staged."""
    there = folder / "nano" / "bundles"
    files = {path.name: path.read_bytes() for path in sorted((there / name).iterdir())}
    state = json.loads((there / f".{name}.json").read_bytes())
    staged = sorted(path.name for path in (folder / "nano" / "staging").rglob("*"))
    return {**files, "its key": state["key"].encode(), "staged": repr(staged).encode()}
