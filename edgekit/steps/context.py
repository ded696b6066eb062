"""What every step needs: the console, the cache, and the steps to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.core.console import Console
from edgekit.parity.executors import LOCAL, Executor

StepName = Literal[
    "load", "export", "calibrate", "compile", "bench", "parity", "graph-parity", "watch"
]
"""The steps that a user can name, in order."""


@dataclass(frozen=True)
class Context:
    """The console, the cache, and the steps to repeat even if their results exist."""

    console: Console
    cache: Path
    forced: frozenset[StepName] = frozenset()
    executor: Executor = LOCAL  # of sweeps
