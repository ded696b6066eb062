"""How often a monitor is wrong on long clean streams, and why it needs the bundle's own reference.

    python benchmarks/watch_promise.py build/cpu --work DIR
    python benchmarks/watch_promise.py build/cpu --work DIR --float model.onnx   # edgekit export

Streams are drawn with replacement from the bundle's answers to all clean test images. Each is
compared with the bundle's reference, and with as many draws of the very images that it consists of:
what is promised is about a reference and a stream of the same images, and a thousand test images
are a little unlike the lab's. With ``--float`` the bundle's answers are also compared with what the
float model answered in the lab.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from watch_answers import PROMISE, Collected, Random, Rows, Watched, stored_answers, watched
from watch_answers import monitors as stored_monitors
from watch_batch import alarms, check_batch

TOGETHER = 250  # streams at a time, whose sums fit a core's cache


def places(monitor: Watched, streams: Rows, random: Random, normal: Rows | None = None) -> Rows:
    """Where each stream alarms."""
    parts = []
    for start in range(0, len(streams), TOGETHER):
        part = slice(start, start + TOGETHER)
        own = None if normal is None else monitor.symbol[normal[part]]
        parts.append(
            alarms(monitor.experts, PROMISE, monitor.symbol[streams[part]], random.random, own)
        )
    return np.concatenate(parts)


def show(title: str, found: Rows, images: int) -> None:
    """A row: how many streams had alarmed by when."""
    by = [int((found < min(limit, images)).sum()) for limit in (1000, 2000, 5000, images)]
    print(f"| {title} | " + " | ".join(str(count) for count in by) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", help="images, unless the build's own")
    parser.add_argument("--clean", type=int, default=5000, help="test images, at most")
    parser.add_argument("--corrupted", type=int, default=200, help="of them in every cell")
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float", type=Path, help="the float model, as `edgekit export` writes it")
    given = parser.parse_args()
    collected = Collected(given.bundle, given.data, given.work, given.clean, given.corrupted)
    collected.open()
    random = np.random.default_rng(given.seed)
    answers, arrays = stored_answers(given.work)
    clean = np.flatnonzero(arrays["number"] == 0)
    monitors = stored_monitors(given.work)
    if given.float is not None:
        monitors = {"float reference": watched(*collected.float_lab(given.float), answers)}
    streams = random.choice(clean, (given.streams, given.images))
    marks = (1000, 2000, 5000, given.images)
    print(f"\n{given.streams} streams of {given.images} of {len(clean)} clean test images")
    print("| alarms within | " + " | ".join(f"{mark:,}" for mark in marks) + " |")
    print("|---|" + "---|" * len(marks))
    due = " | ".join(f"{given.streams * mark / PROMISE / 2:.0f}" for mark in marks)
    print(f"| promised: at most | {due} |")
    for name, monitor in monitors.items():
        check_batch(monitor, PROMISE, streams[:2, :1000])
        lab = monitor.experts.reference.normal.images
        show(f"{name}, the lab's reference", places(monitor, streams, random), given.images)
        if given.float is None:
            same = random.choice(clean, (given.streams, lab))
            found = places(monitor, streams, random, same)
            show(f"{name}, draws of the same images", found, given.images)


if __name__ == "__main__":
    main()
