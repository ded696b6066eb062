"""One row of `edgekit doctor` and `edgekit device check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "missing", "warning", "none"]


@dataclass(frozen=True)
class Check:
    """One row."""

    name: str
    status: Status
    """"none" is absent, where only some targets want it."""
    found: str
    fix: str = ""
    """How to get it; "" if there is nothing to do."""
    needed: bool = False
    """Whether the default target, or the device's, depends on it."""
