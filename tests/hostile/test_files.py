"""Settings and folders that keep a process busy, waiting, or open to others."""

import fcntl
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgekit.core import folders
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import read_regular, write_text
from edgekit.core.folders import locked, replace_folder
from edgekit.core.typed_toml import parse_toml, read_toml
from edgekit.steps.build_data import data_fingerprint


@dataclass(frozen=True)
class Inner:
    steps: int = 1


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5
    name: str = ""
    inner: Inner = field(default_factory=Inner)


def test_a_line_of_blanks_takes_no_time() -> None:
    """To find the line of a key was cubic: 3,000 blanks took 18 seconds."""
    text = " " * 200_000 + "\n" + 'name = "a"\n[inner]\nsteps = "two"\n'
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"m\.toml:4: 'inner\.steps' must be a whole number"):
        parse_toml(text, Settings, "m.toml")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "text",
    [
        "rate = " + "9" * 5000,
        "rate = 1" + "0" * 400,
        "rate = 0x" + "f" * 9000,
        "name = 0x" + "f" * 9000,
        "name = " + "[" * 5000 + "]" * 5000,
        "rate = {" + "a = {" * 3000,
        "\0",
        "inner.steps.deep = 1",
    ],
)
def test_settings_that_are_none_are_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_toml(text, Settings, "m.toml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_settings_come_from_files_that_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(UsageError, match="Not a regular file"):
            read_toml(path, Settings)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 << 20)
    monkeypatch.setenv("EDGEKIT_MAX_FILE_MB", "1")
    with pytest.raises(UsageError, match="large would take 2 MiB of memory, more than 1 MiB"):
        read_regular(tmp_path / "large")


@pytest.fixture
def careful() -> Iterator[None]:
    umask = os.umask  # a test may replace it, and be cleaned up after this
    before = umask(0o027)
    yield
    umask(before)


@pytest.mark.usefixtures("careful")
def test_nobody_is_without_a_umask_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The umask is the process's: a file that another thread makes meanwhile would be open."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("asks for the umask by changing it"))
    write_text(tmp_path / "file", "text")
    replace_folder(tmp_path / "folder", lambda new: write_text(new / "file", "text"))
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_rename_is_brought_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, list[str]]] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, [path.name for path in tmp_path.iterdir()]))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_text(tmp_path / "file", "text")
    assert synced[-1] == (tmp_path.stat().st_ino, ["file"])  # after the rename, not before


def test_a_pipe_among_leftovers_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".bundle.abcd.partial")
    replace_folder(tmp_path / "bundle", lambda new: write_text(new / "file", "text"))
    assert (tmp_path / "bundle" / "file").read_text() == "text"


HOLD = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_that_others_hold_is_named_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read a folder may lock it."""
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.3)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for folder in (tmp_path, bundle):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(EdgekitError, match=f"another process has locked {folder} for"):
                write(bundle) if folder == tmp_path else read(bundle)
            holder.kill()
    handle = os.open(bundle, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    read(bundle)  # readers do not mind each other
    os.close(handle)


def write(bundle: Path) -> None:
    replace_folder(bundle, lambda new: None)


def read(bundle: Path) -> None:
    with locked(bundle, shared=True):
        pass


def test_links_to_nowhere_among_photos_are_no_traceback(tmp_path: Path) -> None:
    """Whether a build is up to date was asked of each file's target."""
    (tmp_path / "cat").mkdir()
    before = data_fingerprint(str(tmp_path))
    (tmp_path / "cat" / "loop.png").symlink_to("loop.png")
    looped = data_fingerprint(str(tmp_path))
    (tmp_path / "cat" / "lost.png").symlink_to("nowhere.png")
    assert len({before, looped, data_fingerprint(str(tmp_path))}) == 3
