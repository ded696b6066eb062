"""The metrics of accuracy control. Apart from the recipes, because those import NumPy."""

from __future__ import annotations

from typing import Final, Literal

Metric = Literal["corruption-error", "code-agreement"]
METRIC: Final[Metric] = "corruption-error"
"""The default where neither the recipe nor the user names one."""
