"""Names that a terminal would obey, that are no UTF-8, and users without a home."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit
from edgekit.cli.main import main
from edgekit.core.console import Console, expect_document, printable
from edgekit.core.documents import Failure
from edgekit.core.progress import ProgressBar, track
from edgekit.core.tables import Table
from tests import bundles
from tests.data.images import png

TITLE = "\x1b]0;owned\x07"
RTL = "photo\u202egpj.exe"


def run(
    *words: str | bytes, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *words],
        capture_output=True, check=False, timeout=120, env={**os.environ, **(environment or {})},
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A good image, and one with a name from another decade; and one from an enemy."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"good.png", b"caf\xe9.png", b"\x1b[2Jgone.png", b"bad\x1b[31m\xff.png"):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(png(3))
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\x1b[31m\xff.png")).write_bytes(b"none")
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_no_text_do_not_lose_the_run(photos: Path, encoding: str) -> None:
    bundle = str(bundles.bundle("onnxruntime-cpu"))
    environment = {"PYTHONIOENCODING": encoding}
    plain = run("predict", bundle, str(photos), environment=environment)
    assert plain.returncode == 0, plain.stderr
    assert b"caf\\udce9.png" in plain.stdout
    assert b"\\x1b[2Jgone.png" in plain.stdout
    assert b"\x1b" not in plain.stdout + plain.stderr
    document = run("predict", bundle, str(photos), "--json", environment=environment)
    assert document.returncode == 0, document.stderr
    sources = [one["source"] for one in json.loads(document.stdout)["predictions"]]
    assert os.fsencode(photos) + b"/caf\xe9.png" in map(os.fsencode, sources)
    assert f"{photos}/\x1b[2Jgone.png" in sources


@pytest.mark.parametrize("letter", ["x", "\x1b"])
def test_errors_end(
    letter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header of an array, a key of a list of devices: 100,000 letters of it were an error."""
    registry = tmp_path / "devices.toml"
    registry.write_text(f"[[device]]\n{json.dumps(letter * 9000)} = 1\n")
    monkeypatch.setenv("EDGEKIT_DEVICES", str(registry))
    with pytest.raises(SystemExit):
        main(["device", "list", "--json"])
    said = capsys.readouterr()
    for line in (said.err, json.loads(said.out)["error"]):
        assert "unknown key" in line
        assert "characters left out" in line
        assert len(line) < 2100
    assert said.err.startswith(f"error: {registry}: unknown key")
    assert said.err.count("\n") == 1


def test_errors_are_safe_too() -> None:
    done = run("inspect", b"/nowhere/\x1b[2J\xff")
    assert done.returncode == 2
    assert b"\\x1b[2J" in done.stderr
    assert b"\x1b" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_everything_a_console_prints_is_safe(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(verbosity=1)
    for say in (console.info, console.detail, console.warn, console.error, console.text):
        say(f"of {TITLE}{RTL}")
    console.prose(f"of {TITLE}{RTL}")
    console.table(Table.of("name"), [(TITLE,), ("two\nlines",)], TITLE)
    list(track(console, [1], 1, TITLE))
    with ProgressBar(console, TITLE, 1) as bar:
        bar.line(TITLE)
    expect_document()
    Console(as_json=True).document(Failure(TITLE + RTL, 1))
    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert "two\\nlines" in said
    assert said.count("\\x1b]0;owned\\x07") >= 9


def test_what_people_write_is_left_as_it_is() -> None:
    for text in ("Straße 東京 שלום مرحبا 👩‍👩‍👧", "two\nlines\twith a tab", "", "café"):
        assert printable(text) == text


NAMELESS = """
import os, pwd, sys
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
for name in ("HOME", "XDG_CACHE_HOME", "EDGEKIT_CACHE"):
    os.environ.pop(name, None)
"""


def test_a_user_without_home_and_name_can_load() -> None:
    code = f"{NAMELESS}\nimport edgekit; print(edgekit.load(sys.argv[1]).describe()['device'])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundles.bundle("cpu"))],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == "CPU\n", done.stderr


def test_a_user_without_home_and_name_is_told_where_to_build() -> None:
    code = f"{NAMELESS}\nfrom edgekit.cli.main import main; main(['build', '--quiet'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set EDGEKIT_CACHE to a folder" in done.stderr


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way, whoever runs this")
    environment = {"EDGEKIT_CACHE": str(tmp_path / "file" / "cache")}
    done = run("build", "--out", str(tmp_path / "out"), "--quiet", environment=environment)
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1, done.stderr
    assert b"set EDGEKIT_CACHE to another folder" in done.stderr


def test_a_cache_that_cannot_be_written_does_not_stop_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert edgekit.load(bundles.bundle("cpu")).labels == bundles.CLASSES
