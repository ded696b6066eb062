"""For `watch.py`: does the named corruption fit, does the estimated error cover the true one?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from watch_answers import Random, Watched

from edgekit.data.corruptions import BENCHMARK15
from edgekit.field.outlook import outlook

if TYPE_CHECKING:
    from watch import Pool


def naming(pool: Pool, random: Random, repeat: int) -> None:
    """Is the named corruption right, and does the estimated error cover the true one?"""
    print(
        "\n| after | corruption right | or among three | error covered | by an exact 90% interval "
        "| unknown |"
    )
    print("|---|---|---|---|---|---|")
    for called, monitor in pool.monitors.items():
        for images in (50, 200):
            shown = " | ".join(
                f"{share:.0%}" for share in named(pool, monitor, images, random, repeat)
            )
            print(f"| {images} images, {called} | {shown} |", flush=True)


def named(
    pool: Pool, monitor: Watched, images: int, random: Random, repeat: int
) -> tuple[float, ...]:
    """The columns of `naming`."""
    right, among, covered, possible, unknown = [], [], [], [], []
    for cell in range(75):
        name = BENCHMARK15[cell // 5]
        for _ in range(repeat):
            rows = random.choice(pool.cells[cell], images)
            look = outlook(monitor.experts, monitor.symbol[rows])
            names = [one.corruption for one in look.resembles]
            right.append(names[:1] == [name])
            among.append(name in names)
            unknown.append(look.unknown >= 0.5)
            true, count = pool.wrong[pool.cells[cell]].mean(), len(pool.cells[cell])
            if look.error is not None:
                covered.append(look.error.low <= true <= look.error.high)
                half = (look.error.high - look.error.low) / 2
                possible.append(_covered(half, math.sqrt(true * (1 - true) / count)))
    return tuple(float(np.mean(values)) for values in (right, among, covered, possible, unknown))


def _covered(half: float, deviation: float) -> float:
    """How often an exact 90% interval holds a rate that is itself known with this deviation."""
    own = half / 1.645
    return math.erf(half / math.hypot(own, deviation) / math.sqrt(2))
