"""Files that appear whole, whoever was killed before, and stay when the power fails."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from edgekit.core import files
from edgekit.core.errors import EdgekitError
from edgekit.core.files import file_sha256, open_regular, write_atomically, write_text
from edgekit.core.folders import replace_folder

HALF = """
import os, signal, sys
from pathlib import Path
from edgekit.core.files import write_atomically

def write(stream):
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), write)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a [b].txt"
    done = subprocess.run([sys.executable, "-c", HALF, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".a [b].txt.")
    write_text(tmp_path / "other.txt", "x")
    assert names(tmp_path) == [left, "other.txt"]
    write_text(path, "whole")
    assert names(tmp_path) == ["a [b].txt", "other.txt"]
    assert path.read_text() == "whole"


def test_a_living_writer_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def slow(stream: BinaryIO) -> None:
        stream.write(b"slow")
        stream.flush()
        write_text(path, "fast")
        assert len(names(tmp_path)) == 2  # the fast one's, and what the slow one writes

    write_atomically(path, slow)
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"slow"


def test_a_writer_makes_way_for_whoever_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is new, not locked yet, and looks like a dead one's."""
    taken: list[int] = []
    real = os.open

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        handle = real(path, flags, mode)
        if flags & os.O_CREAT and not taken:
            taken.append(real(path, os.O_RDONLY))
            fcntl.flock(taken[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(path).unlink()
        return handle

    monkeypatch.setattr(os, "open", opened)
    write_text(tmp_path / "file", "whole")
    assert len(taken) == 1
    os.close(taken[0])
    assert (tmp_path / "file").read_text() == "whole"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were brought to disk, in that order."""
    found: list[str] = []
    real = files.sync_folder

    def sync(path: Path) -> None:
        found.append(path.name)
        real(path)

    monkeypatch.setattr(files, "sync_folder", sync)
    return found


def test_new_folders_are_on_disk_before_what_is_in_them(tmp_path: Path, synced: list[str]) -> None:
    """Their own names would be lost with the power, and all that they hold."""
    write_text(tmp_path / "one" / "two" / "file", "x")
    assert synced == [tmp_path.name, "one", "two"]
    synced.clear()
    replace_folder(tmp_path / "three" / "bundle", lambda folder: None)
    assert synced == [tmp_path.name]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "out", tmp_path / "other"
    if kind == "link":
        other.write_text("mine")
    if "link" in kind:
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = path.lstat()
    with pytest.raises(EdgekitError, match=r"cannot write .*: (it is|Is a)"):
        write_text(path, "text")
    assert path.lstat() == before
    assert not list(tmp_path.glob(".*"))
    if kind == "link":
        assert other.read_text() == "mine"


def test_a_name_with_a_nul_is_no_file() -> None:
    with pytest.raises(OSError, match="No file has such a name"):
        open_regular(Path("a\0b"))


def test_what_never_ends_is_not_hashed() -> None:
    with pytest.raises(OSError, match="Not a regular file: '/dev/zero'"):
        file_sha256(Path("/dev/zero"))
