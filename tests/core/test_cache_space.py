"""The cache is listed, and emptied only while nobody uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.core.cache_space import cache_parts, clean
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.step_cache import cached, find
from tests import commands

QUIET = Console(verbosity=-1)
USE = "import sys; from pathlib import Path; from edgekit.core.cache_space import use_cache; "
USE += "use_cache(Path(sys.argv[1])); print('holds', flush=True); sys.stdin.read()"


def fill(root: Path, *sizes: int) -> None:
    """An entry of "export" for every size, the first ones older by a day each."""
    for number, size in enumerate(sizes):
        folder = root / "export" / f"entry-{number}"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(os.urandom(size))
        then = time.time() - 86_400 * (len(sizes) - number)
        for path in (folder / "model.onnx", folder):
            os.utime(path, (then, then))


def test_everything_is_counted_where_it_lies(tmp_path: Path) -> None:
    fill(tmp_path, 8192, 65536)
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "a.blob").write_bytes(bytes(1 << 20))
    compiled, export = cache_parts(tmp_path)
    assert (compiled.name, export.name) == ("compiled", "export")
    assert compiled.bytes >= 1 << 20
    assert export.bytes >= 8192 + 65536


def test_only_what_is_old_is_removed(tmp_path: Path) -> None:
    fill(tmp_path, 10, 10, 10)
    (removed,) = clean(tmp_path, 1.5 * 86_400)
    assert [entry.path.name for entry in removed.entries] == ["entry-0", "entry-1"]
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["entry-2"]
    clean(tmp_path)
    assert cache_parts(tmp_path) == []


def test_nothing_is_removed_in_use(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    user = subprocess.Popen(
        [sys.executable, "-c", USE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == "holds\n"
        with pytest.raises(EdgekitError, match="is in use by another edgekit"):
            clean(tmp_path)
        assert len(cache_parts(tmp_path)) == 1
        user.communicate("")
    assert len(clean(tmp_path)) == 1


def test_a_step_that_is_found_counts_as_used(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "x").write_text("x")

    entry = cached(tmp_path, "export", {"a": 1}, make, QUIET)
    long_ago = time.time() - 864_000
    for path in (*entry.iterdir(), entry):
        os.utime(path, (long_ago, long_ago))
    assert find(tmp_path, "export", {"a": 1}, QUIET) == entry
    (part,) = cache_parts(tmp_path)
    assert part.entries[0].used > time.time() - 60
    # Found by this process, which may go on to read it: so not even this process may clean.
    with pytest.raises(EdgekitError, match="in use"):
        clean(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code, out, err = commands.run(capsys, "cache", *words)
    return code, out or err


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "none"))
    assert run(capsys) == (0, f"0.0 MB in {tmp_path / 'none'}\n")
    assert run(capsys, "clean")[0] == 0
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    fill(tmp_path, 10, 10)
    code, out = run(capsys, "--json")
    report = json.loads(out)
    assert (code, report["removed"], report["parts"][0]["entries"]) == (0, False, 2)
    assert report["parts"][0]["oldest_days"] == 2
    assert run(capsys, "--older-than", "1") == (
        2,
        "error: --older-than is for 'edgekit cache clean'\n",
    )
    code, out = run(capsys, "clean", "--older-than", "1.5", "--json")
    assert json.loads(out)["parts"][0]["entries"] == 1
    assert len(cache_parts(tmp_path)[0].entries) == 1
