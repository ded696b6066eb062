"""What a monitor's reference loses if it is made of fewer images.

    python benchmarks/watch_size.py build/cpu --work DIR    # after watch.py with the same DIR

Every size is drawn several times from the images of the reference that `watch.py` kept: so many to
compare with, and so many in all corruptions. The streams are those of `watch.py`, and the names
those of `watch_naming.py`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from watch import CLEAN_FIRST, CLEAN_LENGTH, LONGEST, Pool, changed, monitor_alarms
from watch_answers import Collected, Random, Rows, Watched, stored_answers, stored_lab, watched
from watch_naming import Tried, draws, looks, shares

from edgekit.data.corruption_grid import Cells
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.loading import epoch_order
from edgekit.runtime.answers import Answers
from edgekit.steps.field_options import FieldOptions
from edgekit.steps.field_reference import Lab

Side = tuple[Answers, NDArray[np.int64] | None]


def taken(side: Side, rows: Rows) -> Side:
    """Some of the answers, with their labels."""
    answers, labels = side
    return answers.part(rows), None if labels is None else labels[rows]


class Whole:
    """The kept reference's answers, and which corrupted image each of them is of."""

    def __init__(self, collected: Collected) -> None:
        self.lab, self.codewords = stored_lab(collected.work)
        options = FieldOptions()
        cells = Cells(BENCHMARK15, options.severities)
        validation = collected.validation()
        rows = epoch_order(len(validation), 0, 0)[: options.images].tolist()
        self.normal, self.corrupted = (
            len(side[0].logits) for side in (self.lab.normal, self.lab.clean)
        )
        owners: dict[int, list[int]] = defaultdict(list)
        for image, row in enumerate(rows[: self.corrupted]):
            for number in cells.sample(validation.digest(row), options.levels):
                owners[number].append(image)
        self._owners = {number: np.array(images) for number, images in owners.items()}

    def part(self, normal: int, corrupted: int, random: Random) -> Lab:
        """A reference's answers from so many of the images."""
        kept = random.permutation(self.corrupted)[:corrupted]
        cells = []
        for place, (name, level, answers, labels) in enumerate(self.lab.cells):
            rows = np.flatnonzero(np.isin(self._owners[1 + place], kept))
            if len(rows):
                cells.append((name, level, *taken((answers, labels), rows)))
        compared = random.permutation(self.normal)[:normal]
        return Lab(taken(self.lab.normal, compared), taken(self.lab.clean, kept), tuple(cells))


def tried(pool: Pool, monitors: list[Watched], random: Random) -> str:
    """The row of a size: false alarms, images until the alarm, names."""
    wrong, middles = 0, []
    for monitor in monitors:
        streams = random.choice(pool.clean, (50, CLEAN_LENGTH))
        wrong += int((monitor_alarms(monitor, streams, random) < CLEAN_LENGTH).sum())
    for level in (1, 3, 5):
        found = np.zeros((15, len(monitors)))
        for number, monitor in enumerate(monitors):
            streams = np.stack(
                [changed(pool, random, 5 * kind + level - 1, 1.0) for kind in range(15)]
            )
            ends = monitor_alarms(monitor, streams, random)
            found[:, number] = np.maximum(ends - CLEAN_FIRST, 0)
        middle = np.median(found, axis=1)
        text = "> 1,500" if np.median(middle) >= LONGEST else f"{np.median(middle):,.0f}"
        middles.append(f"{text}, {(middle >= LONGEST).sum()}")
    answers = Tried(pool.cells, pool.wrong)
    named = [
        shares(answers, looks(monitor, draws(answers, 200, random, 2)))[:3] for monitor in monitors
    ]
    percent = " | ".join(f"{share:.0%}" for share in np.mean(named, axis=0))
    return f"{wrong} of {50 * len(monitors)} | {' | '.join(middles)} | {percent}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="as watch.py filled it")
    parser.add_argument("--data", help="images, unless the build's own")
    parser.add_argument(
        "--sizes", nargs="+", default=["300,200", "150,100", "100,50", "75,25", "25,25"]
    )
    parser.add_argument("--draws", type=int, default=6, help="of each size")
    given = parser.parse_args()
    whole = Whole(Collected(given.bundle, given.data, given.work, 0, 0))
    pool = Pool(given.work)
    answers, _ = stored_answers(given.work)
    print(
        "| compared with | corrupted | answers | clean streams alarmed | severity 1, never of 15 "
        "| severity 3 | severity 5 | named right | among three | error covered |"
    )
    print("|---|" + "---|" * 9)
    for size in given.sizes:
        normal, corrupted = map(int, size.split(","))
        random = np.random.default_rng(0)
        monitors = [
            watched(whole.part(normal, corrupted, random), whole.codewords, answers)
            for _ in range(given.draws)
        ]
        row = tried(pool, monitors, random)
        print(f"| {normal} | {corrupted} | {normal + 16 * corrupted:,} | {row} |", flush=True)


if __name__ == "__main__":
    main()
