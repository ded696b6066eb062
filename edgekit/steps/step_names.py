"""The names of a build's steps, for the command line: reading them imports nothing else."""

from __future__ import annotations

from typing import Literal

StepName = Literal[
    "load", "export", "calibrate", "compile", "bench", "parity", "graph-parity", "watch"
]
"""The steps that a user can name, in order."""
