"""What this machine is: its architecture, its CPU's features, its cores."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def cpu_flags() -> frozenset[str]:
    """The CPU's feature names as Linux spells them; empty where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_arch() -> str:
    """This machine's architecture under the name that descriptors use."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
