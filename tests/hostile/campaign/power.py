"""The power is cut at any moment: what was there is there, or what was to come, and never half."""

from __future__ import annotations

import functools
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.campaign.case import Hazard, Verdict
from tests.hostile.campaign.commands import COMMANDS, Place, begin, run, scratch, undisturbed
from tests.hostile.campaign.condition import damage
from tests.hostile.campaign.disk import HOWS, Disk, Event, How, read_log
from tests.hostile.campaign.file_faults import Fault
from tests.hostile.campaign.stops import aftermath


@dataclass(frozen=True)
class PowerCut:
    """Replays one recording of a command up to a moment, without what was not synced by then."""

    command: str
    reruns: float = 0.25
    """How often the command runs again on what is left."""

    @property
    def name(self) -> str:
        """What ``--only`` selects."""
        return f"power cut in {self.command}"

    def run(self, seed: int, folder: Path) -> Verdict:
        """One cut."""
        chance = random.Random(f"{self.name} {seed}")
        events = recorded(self.command)
        count, how = chance.randint(0, len(events)), chance.choice(HOWS)
        if chance.random() < 0.1:
            count = len(events)
        return self.cut(count, how, chance, rerun=chance.random() < self.reruns)

    def cut(self, count: int, how: How, chance: random.Random, *, rerun: bool) -> Verdict:
        """The power is cut after ``count`` operations; ``how`` little is left."""
        events, first = recorded(self.command), undisturbed(self.command)
        place = _ready(self.command)
        disk = Disk(place.folder)
        for event in events[:count]:
            disk.apply(event)
        shutil.rmtree(place.folder)
        disk.cut(place.folder, how, chance)
        for name in ("tmp", "home", "cache"):  # whoever mounts the disk again has these
            (place.folder / name).mkdir(exist_ok=True)
        where = f"after {count} of {len(events)} operations, {how} of the rest"
        if broken := damage(place, first.before):
            return Verdict("fault", f"{where}: {broken}")
        if count == len(events):
            try:
                found = COMMANDS[self.command].outputs(place)
            except FileNotFoundError as error:
                return Verdict("fault", f"{where}: the command had ended, {error.filename} is gone")
            if found != first.outputs:
                return Verdict("fault", f"{where}: the command had ended, its result is another")
        if rerun and (wrong := aftermath(self.command, place)):
            return Verdict("fault", f"{where}: {wrong}")
        return Verdict("passed", where)


def _ready(name: str) -> Place:
    """Where a command can start, with the files that its words name."""
    place = begin(name)
    COMMANDS[name].words(place)
    return place


@functools.cache
def recorded(name: str) -> tuple[Event, ...]:
    """All operations of a command that is not disturbed; the recording is complete."""
    undisturbed(name)
    place = _ready(name)
    disk = Disk(place.folder)
    log = scratch() / f"{name}.log"
    run(COMMANDS[name], place, Fault("record", folder=place.folder, log=log))
    events = read_log(log)
    for event in events:
        disk.apply(event)
    missing = disk.differs(place.folder)
    assert not missing, f"not all of {name} was recorded: {missing}"
    return tuple(events)


_CUT = ("build", "build anew", "calibrate again", "train", "parity", "sign", "bench")

HAZARDS: tuple[Hazard, ...] = (
    *(PowerCut(command) for command in _CUT),
    *(PowerCut(command) for command in ("zip", "replace", "put back")),
    # Half of an answer that was kept would show in the comparison that uses it.
    PowerCut("more parity", 1.0),
    PowerCut("device add again", 1.0),
)
