"""The disk is full from some moment on: a line that names the place, and then all goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.campaign.case import Hazard, Verdict
from tests.hostile.campaign.commands import COMMANDS, begin, run, undisturbed
from tests.hostile.campaign.condition import differences
from tests.hostile.campaign.file_faults import Fault, Finished, Mode
from tests.hostile.campaign.stops import aftermath

_MODES: tuple[Mode, ...] = ("full", "full for names")


@dataclass(frozen=True)
class FullDisk:
    """No byte more (or no name more, either) from one operation on; then there is room again."""

    command: str

    @property
    def name(self) -> str:
        """What ``--only`` selects."""
        return f"full disk in {self.command}"

    def run(self, seed: int, folder: Path) -> Verdict:
        """One full disk."""
        chance = random.Random(f"{self.name} {seed}")
        first = undisturbed(self.command)
        place = begin(self.command)
        at = chance.randint(1, first.finished.operations)
        fault = Fault(chance.choice(_MODES), at, place.folder)
        ended = run(COMMANDS[self.command], place, fault)
        where = f"{fault.mode} at operation {at} of {first.finished.operations}"
        if wrong := complaint(ended, place.folder, first.finished.code):
            return Verdict("fault", f"{where}: {wrong}")
        if ended.code == first.finished.code:
            found = COMMANDS[self.command].outputs(place)
            if different := differences(found, first.outputs):
                return Verdict("fault", f"{where}: it ends well, without {', '.join(different)}")
        if wrong := aftermath(self.command, place):
            return Verdict("fault", f"{where}: {wrong}")
        if ended.code == first.finished.code:
            return Verdict("passed", f"{where}: nothing that had to be written")
        return Verdict("refused", f"{where}: {ended.stderr.strip().splitlines()[-1]}")


def complaint(ended: Finished, folder: Path, success: int) -> str:
    """What is wrong with how a command says that there is no room."""
    if ended.code == success:
        return ""
    if ended.code not in (1, 2):
        return f"it ended with {ended.code}: {ended.stderr[-500:]}"
    if "Traceback" in ended.stderr or "Traceback" in ended.stdout:
        return f"a traceback: {ended.stderr[-900:]}"
    lines = ended.stderr.strip().splitlines()
    if not lines or not lines[-1].startswith("error: "):
        return f"no line: {ended.stderr[-500:]}"
    if str(folder) not in lines[-1] and "space" not in lines[-1]:
        return f"its line names neither the place nor the reason: {lines[-1]}"
    return ""


_FILLED = (
    "build",
    "build anew",
    "calibrate",
    "calibrate again",
    "train",
    "parity",
    "sign",
    "bench",
    "deploy",
)

HAZARDS: tuple[Hazard, ...] = tuple(FullDisk(command) for command in _FILLED)
