"""kill -9 at any moment: nothing half done, nothing lost, and the same command again succeeds."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.hostile.campaign.case import Hazard, Verdict
from tests.hostile.campaign.commands import (
    COMMANDS,
    SECONDS,
    Command,
    Place,
    begin,
    forker,
    run,
    undisturbed,
)
from tests.hostile.campaign.condition import damage, differences, leftovers, survivors
from tests.hostile.campaign.file_faults import Fault

if TYPE_CHECKING:
    from pathlib import Path


# What a command says when all was done, but for ending.
_DONE = ("exists: choose another name", "has nothing to roll back to")


@dataclass(frozen=True)
class Stop:
    """Kills one command, at a file operation or at a moment, and runs it again."""

    command: str
    at: Literal["operation", "moment"]

    @property
    def name(self) -> str:
        """What ``--only`` selects."""
        return f"kill {self.command} at a {self.at}"

    def run(self, seed: int, folder: Path) -> Verdict:
        """One kill. Commands write paths down, so all cases have one folder, not ``folder``."""
        chance = random.Random(f"{self.name} {seed}")
        first = undisturbed(self.command)
        place = begin(self.command)
        command = COMMANDS[self.command]
        if self.at == "operation":
            fault = Fault("kill", chance.randint(1, first.finished.operations), place.folder)
            where = f"at operation {fault.at} of {first.finished.operations}"
            code = run(command, place, fault).code
        else:
            moment = chance.uniform(0, first.finished.seconds)
            where = f"after {moment:.2f} of {first.finished.seconds:.2f} s"
            code = _killed_after(command, place, moment)
        if code not in (-signal.SIGKILL, first.finished.code):
            return Verdict("fault", f"{where} it ended with {code}")
        if wrong := aftermath(self.command, place):
            return Verdict("fault", f"killed {where}: {wrong}")
        return Verdict("passed", where if code < 0 else f"ended before {where}")


def _killed_after(command: Command, place: Place, seconds: float) -> int:
    child = forker().start(
        command.words(place), place.folder, env=place.env, program=command.program
    )
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    return forker().wait(child, SECONDS).code


def aftermath(name: str, place: Place) -> str:
    """What is wrong after a command was disturbed, and when it runs once more; "" for nothing."""
    first, command = undisturbed(name), COMMANDS[name]
    if alive := survivors(place):
        return f"processes live on: {alive}"
    if broken := damage(place, first.before):
        return broken
    again = run(command, place)
    if any(words in again.stderr for words in _DONE):
        again = first.finished
    if again.code != first.finished.code:
        return f"run again it ends with {again.code}: {again.stderr.strip()[-300:]}"
    if different := differences(command.outputs(place), first.outputs):
        return f"run again it makes others: {', '.join(different)}"
    if broken := damage(place, first.before):
        return f"after running again: {broken}"
    if left := leftovers(place):
        return f"left behind for good: {', '.join(left)}"
    return ""


_KILLED = (
    *("build", "build anew", "build again", "calibrate", "calibrate again"),
    *("train", "parity", "sign", "bench", "deploy", "deploy again"),
    *("zip", "device add again", "replace", "put back"),
)
# Its host changes hardly any files: what it is about happens at the other end.
_AT_MOMENTS = ("deploy over ssh", "deploy over ssh again", "roll back")

HAZARDS: tuple[Hazard, ...] = (
    *(Stop(command, at) for command in _KILLED for at in ("operation", "moment")),
    *(Stop(command, "moment") for command in _AT_MOMENTS),
)
