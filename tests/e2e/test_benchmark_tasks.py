"""The tasks of benchmarks leave the same files here and on Ray, and none is done twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import ToolchainMissing
from edgekit.core.packages import install_command

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))

from tasks import Task, run_all  # noqa: E402 - beside the scripts that use it

WITH_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="the [ray] extra is not installed")


def write(path: Path, text: str) -> Task:
    return Task(path.name, path, partial(path.write_text, text))


def copy(path: Path, source: str, *, is_needed: bool = True) -> Task:
    """Takes another task's file, which it needs, or at least must come after."""
    make = partial(shutil.copyfile, path.with_name(source), path)
    names = {"needs" if is_needed else "after": (source,)}
    return Task(path.name, path, make, **names)


@pytest.mark.parametrize("on", [None, pytest.param("ray", marks=WITH_RAY)])
def test_what_fails_is_named_and_the_others_go_on(
    tmp_path: Path,
    on: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A script's own folder is known to Ray's workers, but this is none.
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS), prepend=os.pathsep)
    write(tmp_path / "done", "before").make()
    tasks = [
        copy(tmp_path / "late", "early"),
        write(tmp_path / "early", "early"),
        write(tmp_path / "done", "again"),
        Task("broken", tmp_path / "broken", partial(int, "no number")),
        Task("silent", tmp_path / "silent", partial(str, "leaves nothing")),
        copy(tmp_path / "hopeless", "broken"),
        copy(tmp_path / "unlucky", "broken", is_needed=False),
        copy(tmp_path / "lucky", "done", is_needed=False),
    ]
    failed = run_all(tasks, on, 1, Console())
    assert set(failed) == {"broken", "silent", "hopeless", "unlucky"}
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"done": "before", "early": "early", "late": "early", "lucky": "before"}
    lines = capsys.readouterr().err.splitlines()
    assert any("broken: failed: ValueError: invalid literal" in line for line in lines)
    assert any(f"silent: failed: it left no {tmp_path / 'silent'}" in line for line in lines)
    assert any("hopeless: left out, as it needs broken" in line for line in lines)
    assert any("unlucky: failed: FileNotFoundError" in line for line in lines)
    assert sum(": done (" in line for line in lines) == 3


def test_without_ray_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.core.packages._installed", lambda name: name != "ray")
    with pytest.raises(ToolchainMissing, match=r"needs ray, which is not installed") as caught:
        run_all([write(tmp_path / "file", "text")], "ray", 1, Console())
    assert str(caught.value).endswith(install_command("ray"))
    assert not (tmp_path / "file").exists()


def test_tables_of_what_is_finished(tmp_path: Path) -> None:
    """One line for the only row that has all of its results; and a mistake is one line."""
    errors = {"images": 9, "clean_error": 0.25, "mean_corruption_error": 0.5}
    no_codes = dict.fromkeys(("used_codes", "code_perplexity", "code_agreement"))
    result: dict[str, object] = {**errors, **no_codes, "corruption_errors": {}}
    for seed in range(3):
        folder = tmp_path / "fashion-mnist" / f"benchmark15-paired-no-codebook-{seed}"
        folder.mkdir(parents=True)
        (folder / "test.json").write_text(json.dumps(result))
    done = script("training_results.py", "--work", str(tmp_path), "--only=fashion-mnist", "--table")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "benchmark15" in line or "none" in line]
    assert rows == ["| paired, no codebook | benchmark15 | 25.0 ± 0.0 | 50.0 ± 0.0 | — | — |"]
    done = script(
        "quantization_results.py", "--work", str(tmp_path), "--only=fashion-mnist", "--on=x"
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--on x: write --on ray, or --on ray:ADDRESS" in line


def script(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
