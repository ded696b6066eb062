"""Programs as classifiers that flood, hang, fork and lie: one line, and nothing left of them."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.foreign.program import open_program

ROOT = Path(__file__).parents[2]
START = """
import sys
sys.path[:0] = {path!r}
from edgekit.core.errors import EdgekitError
from edgekit.foreign import program
program.result_of = lambda future, what, seconds=1: future.result(seconds)
program._GRACE = 0.5
try:
    program.open_program({command!r}, (4, 4))
except TimeoutError:
    print("late")
except EdgekitError as error:
    print(error)
"""
ANSWER = "import sys; sys.stdin.buffer.readline(); print('logits 1 2', flush=True); "


def command(tmp_path: Path, source: str) -> str:
    (tmp_path / "program.py").write_text(source)
    return shlex.join([sys.executable, str(tmp_path / "program.py")])


def living(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if mark.encode() in words and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.sleep(1000)",
        "import os, time; os.close(0); time.sleep(1000)",
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(1000)', __file__]); time.sleep(1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 65536)",
    ],
    ids=["silence", "closed input", "children", "flood of errors"],
)
def test_nothing_is_left_of_a_program_that_never_answers(source: str, tmp_path: Path) -> None:
    code = START.format(path=[str(ROOT), *sys.path], command=command(tmp_path, source))
    begin = time.monotonic()
    before = sum(path.stat().st_size for path in tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "late\n", done.stderr
    assert done.stderr == ""
    assert time.monotonic() - begin < 50
    assert living(str(tmp_path / "program.py")) == []
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) == before


def test_a_flood_of_errors_is_read_and_forgotten(tmp_path: Path) -> None:
    source = "import sys\nfor _ in range(400): sys.stderr.write('x' * 65536)\n"
    source += "sys.stderr.write('\\nno camera'); sys.exit(3)"
    with pytest.raises(EdgekitError, match="exit code 3, no camera"):
        open_program(command(tmp_path, source), (4, 4))


@pytest.mark.parametrize("count", ["9" * 150, "-1", "1e9", "\u0662", ""])
def test_counts_that_are_none(count: str, tmp_path: Path) -> None:
    source = f"import sys; sys.stdin.buffer.readline(); print('logits 1 {count}', flush=True)"
    with pytest.raises(EdgekitError, match="is expected"):
        open_program(command(tmp_path, source), (4, 4))


def test_words_that_start_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no command line: No closing quotation"):
        open_program("python3 'x", (4, 4))
    (tmp_path / "empty").write_bytes(b"\x7fELF")
    (tmp_path / "empty").chmod(0o755)
    with pytest.raises(UsageError, match="cannot start"):
        open_program(str(tmp_path / "empty"), (4, 4))


def test_a_script_among_the_arguments_is_no_name_of_a_file() -> None:
    script = ANSWER + "sys.stdout.buffer.write(bytes(8)); sys.stdout.flush(); " + "pass; " * 900
    program = open_program(shlex.join([sys.executable, "-c", script]), (4, 4))
    assert program.outputs[0].shape == (None, 2)
