"""How often a monitor is wrong on long clean streams, and why it needs the bundle's own reference.

    python benchmarks/watch_promise.py build/cpu --work DIR
    python benchmarks/watch_promise.py build/cpu --work DIR --float model.onnx   # edgekit export
    python benchmarks/watch_promise.py build/cpu --work DIR --other DIR2

Streams are drawn with replacement from the bundle's answers to all clean test images. Each is
compared with the bundle's reference, and with as many draws of the very images that it consists of:
what is promised is about a reference and a stream of the same images, and a thousand test images
are a little unlike the lab's. With ``--float`` the bundle's answers are instead compared with what
the float model answered in the lab, with ``--other`` with what another model did, whose folder
`watch.py` filled. Before that, a few streams are held against `edgekit.Monitor`, image by image,
with a promise so small that they alarm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from watch_answers import (
    PROMISE,
    Collected,
    Random,
    Rows,
    Watched,
    stored_answers,
    stored_lab,
    watched,
)
from watch_answers import monitors as stored_monitors
from watch_batch import alarms, check_batch
from watch_naming import Tried, naming, tried

from edgekit.field.outlook import clean_error

TOGETHER = 250  # streams at a time, whose sums fit a core's cache
EARLY, CHECKED = 1000, 4  # images a false alarm, of so many streams held against the monitor


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
    parser.add_argument("--other", type=Path, help="the folder of another model's trial")
    given = parser.parse_args()
    collected = Collected(given.bundle, given.data, given.work, given.clean, given.corrupted)
    collected.open()
    random = np.random.default_rng(given.seed)
    answers, arrays = stored_answers(given.work)
    own = stored_monitors(given.work)
    foreign: dict[str, Watched] = {}
    if given.float is not None:
        foreign["float model"] = watched(*collected.float_lab(given.float), answers)
    if given.other is not None:
        foreign["another model"] = watched(*stored_lab(given.other), answers)
    clean = np.flatnonzero(arrays["number"] == 0)
    streams = random.choice(clean, (given.streams, given.images))
    same = random.choice(clean, (given.streams, own["monitor"].experts.reference.normal.images))
    for monitor in (foreign or own).values():
        check_batch(monitor, EARLY, streams[:CHECKED])
        check_batch(monitor, EARLY, streams[:CHECKED], same[:CHECKED])
    marks = (1000, 2000, 5000, given.images)
    print(f"\n{given.streams} streams of {given.images} of {len(clean)} clean test images")
    print("| alarms within | " + " | ".join(f"{mark:,}" for mark in marks) + " |")
    print("|---|" + "---|" * len(marks))
    due = " | ".join(f"{given.streams * mark / PROMISE / 2:.0f}" for mark in marks)
    print(f"| promised: at most | {due} |")
    for name, monitor in (foreign or own).items():
        show(f"{name}, the lab's reference", places(monitor, streams, random), given.images)
        if not foreign:
            found = places(monitor, streams, random, same)
            show(f"{name}, draws of the same images", found, given.images)
    if foreign and given.corrupted:
        compare(tried(given.work), {"its own": own["monitor"], **foreign}, random)


def compare(answers: Tried, watching: dict[str, Watched], random: Random) -> None:
    """What a bundle's answers are said to be by its own reference and by another's."""
    for name, monitor in watching.items():
        error = clean_error(monitor.experts.reference)
        print(f"clean error in the lab, reference of {name}: {error:.1%}")
    naming(answers, watching, random, 10)


if __name__ == "__main__":
    main()
