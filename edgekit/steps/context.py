"""What every step needs: the console, the cache, and the steps to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.core.console import Console
from edgekit.parity.executors import LOCAL, Executor
from edgekit.steps.step_names import StepName


@dataclass(frozen=True)
class Context:
    """The console, the cache, and the steps to repeat even if their results exist."""

    console: Console
    cache: Path
    forced: frozenset[StepName] = frozenset()
    executor: Executor = LOCAL  # of sweeps
