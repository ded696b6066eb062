"""For which image sizes the corruptions have parameters."""

from __future__ import annotations

import math

from edgekit.core.errors import UsageError

TABLE_SIZES: tuple[int, ...] = (224, 64, 32)
"""Image sides in pixels for which parameters were published: ImageNet-C, 64 px, CIFAR-C."""


def table_for(size: int | tuple[int, int]) -> int:
    """Which parameter table (224, 64 or 32) is used for images of this size.

    ``size`` is a side in pixels, or (height, width), of which the shorter counts. The nearest
    table in ratio is taken, because the parameters are lengths in pixels: 96 px uses the 64 px
    table, 128 px the 224 px one.
    """
    side = size if isinstance(size, int) else min(size)
    if side < 1:
        raise UsageError(f"image side {side} is not positive: give a size in pixels")
    return min(TABLE_SIZES, key=lambda table: abs(math.log(side / table)))
