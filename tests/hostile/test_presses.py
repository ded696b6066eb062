"""Ctrl-C while NNCF calibrates, at the moments that once lost it."""

from __future__ import annotations

import shutil

import pytest

from tests.hostile.campaign import presses
from tests.hostile.campaign.commands import COMMANDS, SECONDS, begin, forker
from tests.hostile.campaign.stops import aftermath

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("ssh-keygen") is None,
    reason="g++ or ssh-keygen is missing: apt-get install g++ openssh-client",
)
PRESSES = f"{presses.__name__}:main"


def test_ctrl_c_at_any_moment_of_nncf() -> None:
    """One line and its exit code, nothing left, and a rerun works."""
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
