"""What accuracy control measures its loss in. Apart from the recipes, which import NumPy."""

from __future__ import annotations

from typing import Final, Literal

Metric = Literal["corruption-error", "code-agreement"]
METRIC: Final[Metric] = "corruption-error"
"""Where neither the recipe nor the user says another."""
