"""Does the named corruption fit, does the estimated error cover the true one?

    python benchmarks/watch_naming.py --work DIR    # after watch.py with the same DIR

For `watch.py` one table; by itself also which corruption is taken for which, and all of it once
more with each kind's frequencies from that kind's images alone, as they were before
`Experts.by_cell` looked at codewords and margins separately.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from watch_answers import Random, Rows, Watched, monitors, stored_answers

from edgekit.data.corruptions import BENCHMARK15
from edgekit.field.detector import Experts, Floats
from edgekit.field.outlook import Outlook, outlook

AFTER = (50, 200)  # images
ALONE_PRIOR = 8.0  # images' worth of the pooled frequencies in a kind's own


class Alone(Experts):
    """Each kind of images is known by nothing but its own images."""

    @cached_property
    def by_cell(self) -> Floats:
        """A kind's own counts, smoothed by the frequencies of all symbols."""
        counts = np.array([cell.dense(self.reference.symbols) for cell in self.reference.cells])
        smooth = counts + ALONE_PRIOR * self.frequencies[1]
        return np.asarray(smooth / smooth.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Tried:
    """The answers that names are tried on: the rows of each of 75 cells, and which are wrong."""

    cells: list[Rows]
    wrong: NDArray[np.bool_]


def tried(work: Path) -> Tried:
    """The answers that are kept there."""
    answers, found = stored_answers(work)
    wrong = answers.logits.argmax(axis=1) != found["label"]
    return Tried([np.flatnonzero(found["number"] == 1 + cell) for cell in range(75)], wrong)


@dataclass(frozen=True)
class Case:
    """Images of one cell, and what a monitor said."""

    cell: int
    look: Outlook

    @property
    def true(self) -> str:
        """What these images are."""
        return BENCHMARK15[self.cell // 5]

    @property
    def names(self) -> list[str]:
        """What they are said to be, the likeliest first."""
        return [one.corruption for one in self.look.resembles]


def naming(answers: Tried, watching: Mapping[str, Watched], random: Random, repeat: int) -> None:
    """Print how often names and errors are right, each monitor on the same images."""
    print(
        "\n| after | corruption right | or among three | error covered | by an exact 90% interval "
        "| unknown |"
    )
    print("|---|---|---|---|---|---|")
    drawn = [(images, draws(answers, images, random, repeat)) for images in AFTER]
    for called, monitor in watching.items():
        for images, rows in drawn:
            shown = " | ".join(f"{share:.0%}" for share in shares(answers, looks(monitor, rows)))
            print(f"| {images} images, {called} | {shown} |", flush=True)


def draws(answers: Tried, images: int, random: Random, repeat: int) -> list[tuple[int, Rows]]:
    """So many images of each cell, ``repeat`` times."""
    numbers = range(len(answers.cells))
    return [
        (cell, random.choice(answers.cells[cell], images))
        for cell in numbers
        for _ in range(repeat)
    ]


def looks(monitor: Watched, drawn: list[tuple[int, Rows]]) -> list[Case]:
    """What the monitor says of each draw."""
    return [Case(cell, outlook(monitor.experts, monitor.symbol[rows])) for cell, rows in drawn]


def shares(answers: Tried, cases: list[Case]) -> tuple[float, ...]:
    """The columns of `naming`."""
    covered, possible = [], []
    for case in cases:
        rows, error = answers.cells[case.cell], case.look.error
        if error is not None:
            true = answers.wrong[rows].mean()
            covered.append(error.low <= true <= error.high)
            deviation = math.sqrt(true * (1 - true) / len(rows))
            possible.append(_covered((error.high - error.low) / 2, deviation))
    right = [case.names[:1] == [case.true] for case in cases]
    among = [case.true in case.names for case in cases]
    unknown = [case.look.unknown >= 0.5 for case in cases]
    return tuple(float(np.mean(values)) for values in (right, among, covered, possible, unknown))


def _covered(half: float, deviation: float) -> float:
    """How often an exact 90% interval holds a rate that is itself known with this deviation."""
    own = half / 1.645
    return math.erf(half / math.hypot(own, deviation) / math.sqrt(2))


def confusions(after: int, ways: Mapping[str, list[Case]]) -> None:
    """Print for each corruption how often it is named, and what is named instead."""
    total = len(next(iter(ways.values()))) // len(BENCHMARK15)
    print(f"\n| after {after} images, of {total} | " + " | ".join(ways) + " |")
    print("|---|" + "---|" * len(ways))
    for name in BENCHMARK15:
        texts = []
        for cases in ways.values():
            named = Counter(
                case.names[0] if case.names else "nothing" for case in cases if case.true == name
            )
            others = [f"{other} {count}" for other, count in named.most_common() if other != name]
            texts.append(f"{named[name]}; {', '.join(others[:2])}".replace("_", " "))
        print(f"| {name.replace('_', ' ')} | " + " | ".join(texts) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="as watch.py filled it")
    parser.add_argument("--repeat", type=int, default=10, help="draws of each kind of images")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    answers = tried(given.work)
    watching: dict[str, Watched] = {}
    for called, monitor in monitors(given.work).items():
        alone = replace(monitor, experts=Alone(monitor.experts.reference))
        watching |= {called: monitor, f"{called}, each kind alone": alone}
    random = np.random.default_rng(given.seed)
    naming(answers, watching, random, given.repeat)
    rows = draws(answers, AFTER[-1], random, given.repeat)
    ways = ("monitor, each kind alone", "monitor")
    confusions(AFTER[-1], {called: looks(watching[called], rows) for called in ways})


if __name__ == "__main__":
    main()
