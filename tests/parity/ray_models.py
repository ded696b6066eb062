"""Models for Ray's workers, which import this module, and a sweep of them as a program."""

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.parity.engines import CheckedPredictor, Decision, Quick
from edgekit.parity.predictors import Opener
from edgekit.parity.ray_cluster import executor_on
from edgekit.parity.sweep import Sweep
from edgekit.runtime.answers import Answers
from tests.parity.models import Coarse, coarse, sweep

IMAGES = 24
QUIET = Console(verbosity=-1)


@dataclass
class Logged(Coarse):
    """It writes a line to ``log`` for each image that it is asked about: process and pixels."""

    log: Path = Path()
    pause: float = 0.0  # seconds an image
    refuses: int = -1  # the sum of the pixels that it fails at

    @property
    def opener(self) -> Opener:
        return partial(dataclasses.replace, self)

    def run(self, images: NDArray[np.uint8]) -> Answers:
        total = int(images.sum(dtype=np.int64))
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {total}\n")
        if total == self.refuses:
            raise EdgekitError("it does not like this one")
        time.sleep(self.pause)
        return super().run(images)


def logged(folder: Path, **changes: object) -> Sweep:
    """A sweep of two models over 24 images; the second writes ``log`` in ``folder``."""
    plain = coarse()
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    reference = Logged(**{**fields, "log": Path(os.devnull)})
    fields |= {"key": "other", "name": "other", "blind": 0.2, "log": folder / "log"}
    return sweep(folder / "cache", reference, Logged(**{**fields, **changes}))


def doubted(folder: Path) -> Sweep:
    """The same sweep; its reference has a quick engine, which is damaged in every worker."""
    this = logged(folder)
    trusted = this.reference
    assert isinstance(trusted, Coarse)
    reference = CheckedPredictor(
        *(trusted, "Quick", "quick 1", lambda: Quick(trusted.run, 1), np.inf),
        reopen=partial(_damaged, trusted),
    )
    return dataclasses.replace(this, reference=reference)


def _damaged(trusted: Coarse, decision: Decision) -> CheckedPredictor:
    wrong = dataclasses.replace(trusted, blind=0.5)
    model = CheckedPredictor(trusted, "Quick", "quick 1", lambda: Quick(wrong.run, 1))
    model.settle(decision)
    return model


def lines(folder: Path) -> list[tuple[int, int]]:
    """What was asked: the process, and the sum of the pixels."""
    try:
        text = (folder / "log").read_text()
    except FileNotFoundError:
        return []
    return [(int(pid), int(total)) for pid, total in map(str.split, text.splitlines())]


def main(where: str, folder: str) -> None:
    """Sweep slowly, on Ray."""
    with executor_on(where, QUIET) as executor:
        this = dataclasses.replace(logged(Path(folder), pause=0.5), executor=executor)
        for _ in this.pairs():
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
