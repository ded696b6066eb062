"""Writing a bundle: whole or not at all, whatever stops it."""

import ctypes
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.bundle import store
from edgekit.bundle.store import open_bundle, write_bundle
from edgekit.core import folders
from edgekit.core.errors import EdgekitError, UsageError
from tests.bundle_files import LABELS, about, files, write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".b.dead.partial", tmp_path / ".b.alive.partial"
    unrelated = tmp_path / ".bb.other.partial"
    for path in (dead, alive, unrelated):
        path.mkdir()
        (path / "model.bin").write_bytes(b"half")
    with folders.locked(alive):
        write(tmp_path / "b")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".b.alive.partial",
        ".bb.other.partial",
        "b",
    ]
    write(tmp_path / "b")
    assert not alive.exists()


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    before = open_bundle(path).manifest
    with pytest.raises(UsageError, match="cannot read"):
        write_bundle(path, about(), {**files(), "model.bin": tmp_path / "absent"}, LABELS)
    (tmp_path / "readonly").write_text("")
    with pytest.raises(EdgekitError, match="cannot write"):
        write(tmp_path / "readonly" / "b")
    assert open_bundle(path).manifest == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b", "readonly"]


def test_where_folders_cannot_be_exchanged_nothing_is_lost_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "b")
    monkeypatch.setattr(folders, "exchange", lambda first, second: False)
    write(path, weights=b"newer")
    assert (path / "model.bin").read_bytes() == b"newer"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]
    path.rename(tmp_path / ".b.previous")  # a writer died between the two renames
    assert open_bundle(path).folder.name == ".b.previous"
    write(path, weights=b"newest")
    assert (path / "model.bin").read_bytes() == b"newest"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


def test_exchange_is_available_on_this_machine(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this system's C library has no renameat2")
    assert folders.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "file").read_text() == "b"


WRITER = """
import itertools, sys
from pathlib import Path
from edgekit.core import folders
from edgekit.bundle.store import update_bundle, write_bundle
from tests.bundle_files import LABELS, about, files
if sys.argv[2] == "renames":
    folders.exchange = lambda first, second: False
for number in itertools.count(int(sys.argv[3])):
    weights = number.to_bytes(4, "little") * 50_000
    write_bundle(Path(sys.argv[1]), about(), files(weights=weights), LABELS)
    update_bundle(Path(sys.argv[1]), sections={"n": number}, reports={"bench.json": b"x" * 1000})
    print(number, flush=True)
"""


@pytest.mark.parametrize(("how", "kills"), [("exchange", 6), ("renames", 6)])
def test_a_kill_at_any_moment_leaves_a_whole_bundle(how: str, kills: int, tmp_path: Path) -> None:
    path, generator = tmp_path / "b", random.Random(11)
    write(path, weights=bytes(200_000))
    last = 0
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, str(path), how, str(last + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        done = int(process.stdout.readline())  # it writes, over and over
        time.sleep(generator.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        done = int((process.stdout.read().split() or [str(done)])[-1])
        process.wait()
        opened = open_bundle(path)
        weights = (opened.folder / "model.bin").read_bytes()
        number = int.from_bytes(weights[:4], "little")
        assert weights == weights[:4] * 50_000
        assert number in (done, done + 1)  # the last one finished, or the one at work
        last = number + 1
    write(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


def test_a_reader_never_sees_half_of_each(tmp_path: Path) -> None:
    path = tmp_path / "b"
    write(path, weights=bytes(200_000))
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "exchange", "1"], stdout=subprocess.DEVNULL
    )
    try:
        seen: set[bytes] = set()
        end = time.monotonic() + 60  # a busy machine shows a few in ten
        while len(seen) < 20 and time.monotonic() < end:
            with folders.locked(path, shared=True):
                opened = open_bundle(path)
                weights = (opened.folder / "model.bin").read_bytes()
                assert len(weights) == opened.manifest.files["model.bin"].size
                seen.add(weights[:4])
        assert len(seen) > 3
    finally:
        process.kill()
        process.wait()


def test_a_new_manifest_shows_even_where_it_gets_the_old_ones_number(tmp_path: Path) -> None:
    """Else a reader beside a fast writer takes a new file for a damaged old one."""
    path = write(tmp_path / "b")
    before = store._identity(path)
    time.sleep(0.02)  # a tick of the file system's clock
    with (path / "manifest.json").open("r+b") as stream:
        stream.write(b"{")
    assert store._identity(path) != before


def test_running_out_of_space_is_said_and_leaves_the_old_bundle(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from tests.bundle_files import write\n"
        "try:\n    write(Path(sys.argv[1]), weights=bytes(1_000_000))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("EdgekitError cannot write")
    assert open_bundle(path).manifest.files["model.bin"].size == 7
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, edgekit.bundle.store\n"
        "heavy = {'torch', 'openvino', 'onnx', 'onnxruntime', 'scipy', 'cv2', 'nncf'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
