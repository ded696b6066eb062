"""How much robustness a bundle may lose. Apart from the gates, which import NumPy."""

from __future__ import annotations

from typing import Final

from edgekit.core.errors import UsageError

TOLERANCE: Final = 0.5
"""Points of mean corruption error, where the user says nothing else."""


def check_tolerance(points: float) -> None:
    """Refuse what would let nothing pass."""
    if not points >= 0:
        raise UsageError(f"tolerance must not be negative, not {points}")
