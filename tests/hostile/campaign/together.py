"""Two commands at once in one place: both end well, or one says that another is at work."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.campaign.case import Hazard, Verdict
from tests.hostile.campaign.commands import COMMANDS, SECONDS, begin, forker, undisturbed
from tests.hostile.campaign.stops import aftermath


@dataclass(frozen=True)
class Together:
    """Starts a second command a moment after the first, where that works."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """What ``--only`` selects."""
        return f"together {self.first} and {self.second}"

    def run(self, seed: int, folder: Path) -> Verdict:
        """One pair."""
        chance = random.Random(f"{self.name} {seed}")
        alone = undisturbed(self.first)
        undisturbed(self.second)
        place = begin(self.first)
        children = []
        for name in (self.first, self.second):
            command = COMMANDS[name]
            words = command.words(place)
            children.append(
                forker().start(words, place.folder, env=place.env, program=command.program)
            )
            time.sleep(chance.uniform(0, alone.finished.seconds) / 2)
        ended = [forker().wait(child, SECONDS) for child in children]
        refusals = []
        for name, one in zip((self.first, self.second), ended, strict=True):
            if one.code == undisturbed(name).finished.code:
                continue
            lines = one.stderr.strip().splitlines()
            if one.code not in (1, 2) or not lines or not lines[-1].startswith("error: "):
                return Verdict("fault", f"{name} ended with {one.code}: {one.stderr[-900:]}")
            refusals.append(f"{name}: {lines[-1]}")
        if len(refusals) == 2:
            return Verdict("fault", f"neither ended well: {refusals}")
        if wrong := aftermath(self.first, place):
            return Verdict("fault", f"afterwards: {wrong}")
        return Verdict("refused" if refusals else "passed", "; ".join(refusals))


_PAIRS = (
    *(("build", "build"), ("build again", "parity"), ("parity", "parity"), ("parity", "sign")),
    *(
        ("sign", "sign"),
        ("deploy", "deploy"),
        ("train", "train"),
        ("calibrate again", "calibrate again"),
    ),
    *(("bench", "parity"), ("deploy over ssh", "deploy over ssh")),
)

HAZARDS: tuple[Hazard, ...] = tuple(Together(*pair) for pair in _PAIRS)
