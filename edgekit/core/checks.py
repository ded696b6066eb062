"""One row of `edgekit doctor` and `edgekit device check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "missing", "warning", "none"]


@dataclass(frozen=True)
class Check:
    """One row: ``needed`` says whether the default target depends on it."""

    name: str
    status: Status  # "none": absent, and only some targets want it
    found: str
    fix: str = ""
    needed: bool = False
