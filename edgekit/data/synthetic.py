"""Synthetic images for self-tests and benchmarks: the same on every machine, without any data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pictures(
    count: int, size: tuple[int, int], seed: int = 0, *, fine: bool = True
) -> NDArray[np.uint8]:
    """Synthetic images with large and small structures, uint8 [count, height, width, 3].

    Without ``fine``, single-pixel structures are left out, and they compress to almost nothing.
    """
    random = np.random.default_rng(seed)
    height, width = size
    total = np.zeros((count, height, width, 3))
    for cells, strength in ((3, 70.0), (12, 40.0), (max(size), 15.0 if fine else 0.0)):
        coarse = random.normal(128 / 3, strength, (count, cells, cells, 3))
        rows = np.arange(height) * cells // height
        columns = np.arange(width) * cells // width
        total += coarse[:, rows][:, :, columns]
    return np.clip(total, 0, 255).astype(np.uint8)
