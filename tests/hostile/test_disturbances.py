"""Commands that are killed, interrupted, lose their power or their room: a few of the campaign's.

``tools/campaign.py --only kill`` (power, full, together) runs them for as long as one likes.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.hostile.campaign import presses
from tests.hostile.campaign.case import Hazard
from tests.hostile.campaign.commands import COMMANDS, SECONDS, begin, forker
from tests.hostile.campaign.disk import Disk, Event
from tests.hostile.campaign.registry import disturbances
from tests.hostile.campaign.stops import aftermath

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("ssh-keygen") is None,
    reason="g++ or ssh-keygen is missing: apt-get install g++ openssh-client",
)
PRESSES = f"{presses.__name__}:main"
QUICK = (
    *("kill train at a operation", "kill sign at a operation", "kill build anew at a operation"),
    *("power cut in sign", "power cut in train", "full disk in train", "full disk in sign"),
    *("together sign and sign", "together train and train"),
    *("kill device add again at a operation", "power cut in device add again"),
)


@pytest.mark.parametrize(
    "hazard", [h for h in disturbances() if h.name in QUICK], ids=lambda hazard: hazard.name
)
def test_fixed_seeds(hazard: Hazard, tmp_path: Path) -> None:
    verdict = hazard.run(1, tmp_path)
    assert verdict.kind != "fault", verdict.detail


def test_ctrl_c_at_any_moment_of_nncf() -> None:
    """One line and its exit code, nothing left, and a rerun works.

    Here, because one process forks the commands of all these tests, and its start is half of them.
    """
    command = COMMANDS["calibrate anew"]
    for moment in presses.MOMENTS:
        place = begin("calibrate anew")
        words = [moment, *command.words(place)]
        child = forker().start(words, place.folder, env=place.env, program=PRESSES)
        done = forker().wait(child, SECONDS)
        assert presses.SAID in done.stderr, moment
        assert done.code == 130, (moment, done.stderr)
        assert "Traceback" not in done.stderr, moment
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: interrupted; finished work is kept"), moment
        assert done.stdout == "", moment
        left = {path.name.partition("_")[0] for path in (place.folder / "tmp").iterdir()}
        assert left <= {"torchinductor"}, moment  # torch's own cache, one for each user
        assert not list(place.folder.glob("int8.onnx*")), moment
        assert not list(place.cache.glob("calibrate/*")), moment
    assert aftermath("calibrate anew", place) == ""


def after_the_cut(folder: Path, target: Path, events: list[Event]) -> dict[str, bytes]:
    disk = Disk(folder)
    for event in events:
        disk.apply(event)
    disk.cut(target, "nothing", random.Random(0))
    return {path.name: path.read_bytes() for path in target.iterdir()}


def test_a_cut_undoes_what_was_not_synced(tmp_path: Path) -> None:
    """The replay itself can tell a careful writer from a careless one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    new, old = str(folder / "new"), str(folder / "a")
    write = [Event("create", ("7", new)), Event("write", ("7", "0", "3"), b"new")]
    sync, rename = Event("sync", ("7", new)), Event("rename", (new, old))
    names = Event("sync", ("1", str(folder)))
    careless = after_the_cut(folder, tmp_path / "careless", [*write, rename, names])
    hasty = after_the_cut(folder, tmp_path / "hasty", [*write, sync, rename])
    careful = after_the_cut(folder, tmp_path / "careful", [*write, sync, rename, names])
    assert (careless, hasty, careful) == ({"a": b""}, {"a": b"old"}, {"a": b"new"})
