"""How much robustness a bundle may lose. Separate from the gates, which import NumPy."""

from __future__ import annotations

from typing import Final

from edgekit.core.errors import UsageError

TOLERANCE: Final = 0.5
"""Points of mean corruption error, unless the user says otherwise."""


def check_tolerance(points: float) -> None:
    """Refuse a tolerance that nothing could pass."""
    if not points >= 0:
        raise UsageError(f"tolerance must not be negative, not {points}")
