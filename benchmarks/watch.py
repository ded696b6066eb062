"""How soon a monitor notices that the images have changed, and how often it is wrong.

    python benchmarks/watch.py build/cpu --work DIR                  # the tables of docs/watch.md
    python benchmarks/watch.py build/cpu --work DIR --data cifar10.npz

The reference is made from validation images as `edgekit build --watch` makes it. Streams are drawn,
with replacement, from the bundle's answers to test images, clean and in all 75 cells: clean ones
first, then corrupted ones, or a share of them, or ever more severe ones. All detectors get the same
streams, and each that has a threshold of its own gets the one with which it is wrong as seldom as
the monitor, found on clean streams that it is not tried on.

Baselines: CUSUM of the top probability, the Kolmogorov-Smirnov distance between the last 200 top
probabilities and the reference's, and the same of the images' mean brightness. Their reference is
half of the images that they are tuned on, and their threshold is found on streams of the other
half, over many such divisions: a reference is never quite like the images to come, and a threshold
from streams of the reference itself would not know that. A model with a codebook is also watched
as if it had none: by predicted class and that one's probability.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from watch_answers import (
    PROMISE,
    SEVERITIES,
    Collected,
    Random,
    Rows,
    Watched,
    monitors,
    stored_answers,
)
from watch_batch import alarms, check_batch
from watch_naming import Tried, naming

from edgekit.data.corruptions import BENCHMARK15
from edgekit.field.reference import places

Floats = NDArray[np.float64]
CLEAN_FIRST = 500  # images before the change
LONGEST = 1500  # images after it
CLEAN_LENGTH, CLEAN_STREAMS = 2000, 100  # of each seed
TUNING_STREAMS, DIVISIONS = 300, 30
WINDOW = 200  # images that a sliding window holds


class Pool:
    """The answers by cell, as every detector needs them; clean ones in two halves."""

    def __init__(self, work: Path) -> None:
        self.monitors = monitors(work)
        answers, found = stored_answers(work)
        _, self.top = places(answers, "class")
        self.light = found["light"].astype(np.float64)
        self.wrong = answers.logits.argmax(axis=1) != found["label"]
        rows = [np.flatnonzero(found["number"] == number) for number in range(76)]
        self.tuning, self.clean, self.cells = rows[0][::2], rows[0][1::2], rows[1:]
        self.reference = self.tuning[::2]  # the baselines'


def monitor_alarms(monitor: Watched, streams: Rows, random: Random) -> Rows:
    """The place of each stream's alarm; the streams' length if there is none."""
    return alarms(monitor.experts, PROMISE, monitor.symbol[streams], random.random(streams.shape))


def check(pool: Pool, random: Random) -> None:
    """Many streams at once are calculated as the monitor calculates one."""
    streams = np.stack([changed(pool, random, cell, 1.0) for cell in (4, 24, 44, 74)])
    for monitor in pool.monitors.values():
        check_batch(monitor, PROMISE, streams)


def cusum(pool: Pool, rows: Rows, reference: Rows) -> Floats:
    """Sums of how much lower the top probability is than usual, less half a deviation."""
    clean = pool.top[reference]
    falls = (clean.mean() - pool.top[rows]) / clean.std() - 0.5
    sums = np.concatenate([[0.0], np.cumsum(falls)])
    return np.asarray((sums - np.minimum.accumulate(sums))[1:])


def _kolmogorov(values: Floats, clean: Floats) -> Floats:
    """Distance between the last images' values and clean ones, at every tenth image."""
    clean = np.sort(clean)
    below = np.searchsorted(clean, values) / len(clean)
    found = np.zeros(len(values))
    steps = np.arange(1, WINDOW + 1) / WINDOW
    for end in range(WINDOW, len(values) + 1, 10):
        found[end - 1] = np.abs(np.sort(below[end - WINDOW : end]) - steps).max()
    return np.maximum.accumulate(found)


def probability_distance(pool: Pool, rows: Rows, reference: Rows) -> Floats:
    """Of the top probabilities."""
    return _kolmogorov(pool.top[rows], pool.top[reference])


def brightness_distance(pool: Pool, rows: Rows, reference: Rows) -> Floats:
    """Of the images' mean brightness."""
    return _kolmogorov(pool.light[rows], pool.light[reference])


BASELINES: dict[str, Callable[[Pool, Rows, Rows], Floats]] = {
    "top probability, CUSUM": cusum,
    "top probability, KS": probability_distance,
    "brightness, KS": brightness_distance,
}


def thresholds(pool: Pool, random: Random) -> dict[str, float]:
    """With which a baseline alarms on as few clean streams as the monitor promises."""
    highest: dict[str, list[float]] = {name: [] for name in BASELINES}
    for _ in range(DIVISIONS):
        shuffled = random.permutation(pool.tuning)
        reference, others = np.array_split(shuffled, 2)
        for _ in range(TUNING_STREAMS // DIVISIONS):
            rows = random.choice(others, CLEAN_LENGTH)
            for name, statistic in BASELINES.items():
                highest[name].append(float(statistic(pool, rows, reference).max()))
    share = CLEAN_LENGTH / PROMISE
    return {name: float(np.quantile(values, 1 - share)) for name, values in highest.items()}


def changed(pool: Pool, random: Random, cell: int | Sequence[int], share: float) -> Rows:
    """Clean images, then a share of them from a cell, or from cells one after the other."""
    cells = [cell] if isinstance(cell, int) else list(cell)
    after = np.concatenate(
        [random.choice(pool.cells[one], -(-LONGEST // len(cells))) for one in cells]
    )[:LONGEST]
    clean = random.choice(pool.clean, CLEAN_FIRST + LONGEST)
    return (
        np.where(
            np.concatenate([np.zeros(CLEAN_FIRST), random.random(LONGEST)]) < 1 - share,
            clean,
            np.concatenate([clean[:CLEAN_FIRST], after]),
        )
        if share < 1
        else np.concatenate([clean[:CLEAN_FIRST], after])
    )


def first_beyond(values: Floats, threshold: float) -> int:
    """The place of the alarm; the stream's length if there is none."""
    return int(np.argmax(values > threshold)) if (values > threshold).any() else len(values)


def false_alarms(pool: Pool, limits: list[dict[str, float]], randoms: list[Random]) -> None:
    """How many clean streams each one calls changed."""
    wrong = dict.fromkeys([*pool.monitors, *BASELINES], 0)
    strictly = dict.fromkeys(pool.monitors, 0)
    for limit, random in zip(limits, randoms, strict=True):
        streams = random.choice(pool.clean, (CLEAN_STREAMS, CLEAN_LENGTH))
        for name, monitor in pool.monitors.items():
            places = monitor_alarms(monitor, streams, random)
            wrong[name] += int((places < CLEAN_LENGTH).sum())
            strictly[name] += same_images(pool, monitor, streams, random)
        for rows in streams:
            for name, statistic in BASELINES.items():
                wrong[name] += bool(statistic(pool, rows, pool.reference).max() > limit[name])
    count = CLEAN_STREAMS * len(randoms)
    print(
        f"\n{count} clean streams of {CLEAN_LENGTH} images; promised: at most "
        f"{count * CLEAN_LENGTH / PROMISE / 2:.0f} alarms. Found: "
        + ", ".join(f"{name} {found}" for name, found in wrong.items())
        + ". Compared with images drawn from those of the streams: "
        + ", ".join(f"{name} {found}" for name, found in strictly.items()),
        flush=True,
    )


def same_images(pool: Pool, monitor: Watched, streams: Rows, random: Random) -> int:
    """How many streams are called changed that are compared with draws of the same images.

    This is what is promised: a few hundred test images, drawn again and again, are a little unlike
    the lab's, and a stream that is long enough shows it.
    """
    lab = monitor.experts.reference.normal.images
    normal = monitor.symbol[random.choice(pool.clean, (len(streams), lab))]
    chances = random.random(streams.shape)
    places = alarms(monitor.experts, PROMISE, monitor.symbol[streams], chances, normal)
    return int((places < CLEAN_LENGTH).sum())


def delays(pool: Pool, limits: list[dict[str, float]], randoms: list[Random], repeat: int) -> None:
    """Images until the alarm, median over the corruptions: of all seeds' streams, and by seed."""
    names = [*pool.monitors, *BASELINES]
    print("\n| images | " + " | ".join(names) + " | never within 1,500, of 15 |")
    print("|---|" + "---|" * (len(names) + 1))
    rows_of: list[tuple[str, list[int | Sequence[int]], float]] = [
        (f"severity {level}, {share:.0%} of the images",
         [5 * kind + level - 1 for kind in range(15)], share)
        for share in (1.0, 0.3) for level in SEVERITIES
    ]  # fmt: skip
    creeping: list[int | Sequence[int]] = [range(5 * kind, 5 * kind + 5) for kind in range(15)]
    rows_of.append(("severity 1 to 5, rising every 300 images", creeping, 1.0))
    details = []
    for title, cells, share in rows_of:
        found = {name: np.zeros((15, len(randoms), repeat)) for name in names}
        for seed, random in enumerate(randoms):
            streams = np.stack(
                [changed(pool, random, cell, share) for cell in cells for _ in range(repeat)]
            )
            for name, ends in alarms_of_all(pool, limits[seed], random, streams).items():
                # an alarm before the change counts as at once
                found[name][:, seed] = np.maximum(ends - CLEAN_FIRST, 0).reshape(15, repeat)
        middle = {name: np.median(values, axis=(1, 2)) for name, values in found.items()}
        never = " / ".join(str(int((values >= LONGEST).sum())) for values in middle.values())
        shown = [
            _images(float(np.median(middle[name]))) + _spread(values)
            for name, values in found.items()
        ]
        print(f"| {title} | " + " | ".join(shown) + f" | {never} |", flush=True)
        if share == 1.0 and isinstance(cells[0], int):
            details.append((title, middle["monitor"]))
    print("\n| corruption | " + " | ".join(f"severity {level}" for level in SEVERITIES) + " |")
    print("|---|" + "---|" * len(SEVERITIES))
    clean = pool.wrong[pool.clean].mean()
    for kind, name in enumerate(BENCHMARK15):
        texts = []
        for level, (_, middle_of) in enumerate(details):
            lost = 100 * (pool.wrong[pool.cells[5 * kind + level]].mean() - clean)
            texts.append(f"{_images(float(middle_of[kind]))} ({lost:+.0f})")
        print(f"| {name.replace('_', ' ')} | " + " | ".join(texts) + " |")


def alarms_of_all(
    pool: Pool, limits: dict[str, float], random: Random, streams: Rows
) -> dict[str, Rows]:
    """The places of each one's alarms."""
    places = {
        name: monitor_alarms(monitor, streams, random) for name, monitor in pool.monitors.items()
    }
    for name, statistic in BASELINES.items():
        values = [statistic(pool, rows, pool.reference) for rows in streams]
        places[name] = np.array([first_beyond(value, limits[name]) for value in values])
    return places


def _images(count: float) -> str:
    return "> 1,500" if count >= LONGEST else f"{count:,.0f}"


def _spread(delays_of: Floats) -> str:
    """The lowest and the highest of the seeds' medians over the corruptions."""
    each = np.median(np.median(delays_of, axis=2), axis=0)
    if each.min() >= LONGEST:
        return ""
    return f" ({_images(float(each.min()))} to {_images(float(each.max()))})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", help="images, unless the build's own")
    parser.add_argument(
        "--part", default="test", help="of the images; calibration: to choose a design on"
    )
    parser.add_argument("--clean", type=int, default=5000, help="test images, at most")
    parser.add_argument("--corrupted", type=int, default=200, help="of them in every cell")
    parser.add_argument("--repeat", type=int, default=1, help="streams for each cell and seed")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    Collected(given.bundle, given.data, given.work, given.clean, given.corrupted, given.part).open()
    pool = Pool(given.work)
    randoms = [np.random.default_rng(seed) for seed in range(given.seeds)]
    for name, monitor in pool.monitors.items():
        reference = monitor.experts.reference
        size = len(json.dumps(reference.to_dict(), separators=(",", ":")))
        print(
            f"{name}: by {reference.kind}; {reference.normal.images} images to compare with, "
            f"{reference.clean.images} of {len(reference.cells)} cells to know them by, "
            f"{size:,} bytes"
        )
    print(f"clean error {pool.wrong[pool.clean].mean():.1%}")
    check(pool, randoms[0])
    limits = [thresholds(pool, random) for random in randoms]
    delays(pool, limits, randoms, given.repeat)
    false_alarms(pool, limits, randoms)
    naming(Tried(pool.cells, pool.wrong), pool.monitors, randoms[0], 3 * given.repeat)


if __name__ == "__main__":
    main()
