"""What every step may look at, whatever it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.core.console import Console

StepName = Literal["load", "export", "calibrate", "compile", "bench", "parity"]
"""The steps that a user can name, in their order."""


@dataclass(frozen=True)
class Context:
    """Where to speak, where results are kept, and what is done again although it is there."""

    console: Console
    cache: Path
    forced: frozenset[StepName] = frozenset()
