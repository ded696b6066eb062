"""The action for GitHub and the template for GitLab, their scripts run as they are written.

Run is every script, by the shell and with the environment that the runner documents, on a small
classifier. Left out: the runners themselves, and that pip can install edgekit. The Python that the
action is given here makes an environment whose pip only notes what it should install, and whose
edgekit is this checkout.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests import documents
from tests.foreign import classifiers, lies

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB = yaml.safe_load((ROOT / "docs/gitlab-ci.yml").read_text())
INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")
# Text that runs, writes or leaves its place wherever a script takes it for code.
HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "' ; touch pwned '",
    '" ; touch pwned "',
    "a\ntouch pwned\nverdict=pass",
    "::set-output name=verdict::pass",
    "--help",
    "${{ github.token }}",
    "*",
]


@dataclass(frozen=True)
class Place:
    """A checkout of somebody's repository, and the environment without edgekit in it."""

    folder: Path
    tools: Path
    cache: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = f"{self.tools}:{os.environ['PATH']}"
        return {**kept, "PATH": path, "EDGEKIT_CACHE": str(self.cache), **more}

    def pwned(self) -> bool:
        return any(self.folder.parent.rglob("pwned"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache: the reference answers once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path, cache: Path) -> Place:
    here = Place(tmp_path / "repository", tmp_path / "tools", cache)
    here.folder.mkdir()
    here.tools.mkdir()
    edgekit = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path += {sys.path!r}"
    script(here.tools / "edgekit", f"#!{sys.executable}\n{EDGEKIT.format(edgekit)}")
    script(here.tools / "python3", PYTHON.format(sys.executable, here.tools / "edgekit"))
    for name, source in (
        ("float.onnx", classifiers.float_onnx()),
        ("pixels.toml", classifiers.preprocessing()),
        ("images.npz", classifiers.data()),
    ):
        (here.folder / name).symlink_to(source)
    (here.folder / "broken.onnx").symlink_to(lies.classes_exchanged())
    (here.folder / "budgets.toml").write_text("[budgets]\nmax_drop = 3\nmin_agreement = 0.9\n")
    return here


EDGEKIT = """{}
from edgekit.cli.main import main
if __name__ == "__main__":
    main()
"""
# What an environment of Python's needs, and only notes what pip is told.
PYTHON = """#!/bin/bash
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp {1} "$3/bin/edgekit"
elif [ "$1 $2" = "-m pip" ]; then
  printf '%s\\n' "${{@:3}}" >> "$RUNNER_TEMP/pip"
else
  exec {0} "$@"
fi
"""


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@dataclass(frozen=True)
class Ran:
    """What a job left."""

    code: int
    log: str
    summary: str
    outputs: dict[str, str]
    pip: list[str]


def github(place: Place, **inputs: str) -> Ran:
    """The action's steps, one after the other, until one fails."""
    given = {name: str(told.get("default", "")) for name, told in ACTION["inputs"].items()}
    given |= {name.replace("_", "-"): value for name, value in inputs.items()}
    runner = place.folder.parent / "runner"
    runner.mkdir(exist_ok=True)
    files = {name: runner / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    always = {name: str(file) for name, file in files.items()}
    always |= {"GITHUB_ACTION_PATH": str(ROOT), "RUNNER_TEMP": str(runner)}
    log, code = "", 0
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        own = {name: filled(value, given) for name, value in step.get("env", {}).items()}
        file = runner / "step.sh"
        file.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", file],
            cwd=place.folder / filled(step.get("working-directory", "."), given),
            env=place.environment(**always, **own),
            capture_output=True,
            text=True,
            check=False,
        )
        log += done.stdout + done.stderr
        code = done.returncode
        if code:
            break
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    pip = (runner / "pip").read_text().splitlines() if (runner / "pip").exists() else []
    return Ran(code, log, files["GITHUB_STEP_SUMMARY"].read_text(), outputs, pip)


def filled(text: str, inputs: dict[str, str]) -> str:
    return INPUT.sub(lambda found: inputs[found[1]], text)


WHAT = {
    "reference": "float.onnx",
    "data": "images.npz",
    "preprocessing": "pixels.toml",
    "budgets": "budgets.toml",
    "arguments": "--corruptions\nfog,jpeg_compression\n\n--severities=1,3",
}


def test_scripts_hold_no_expression() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        used = [value for value in step.get("env", {}).values() if "${{" in value]
        assert all(INPUT.fullmatch(value) for value in used), used
    steps = json.dumps(ACTION["runs"]["steps"])
    assert set(INPUT.findall(steps)) == ACTION["inputs"].keys()
    for told in ACTION["outputs"].values():
        assert re.fullmatch(r"\$\{\{ steps\.parity\.outputs\.[\w-]+ \}\}", told["value"])


def test_a_pass(place: Place) -> None:
    ran = github(place, bundle="float.onnx", **WHAT)
    assert ran.code == 0, ran.log
    assert ran.outputs["verdict"] == "pass"
    assert ran.outputs["exit-code"] == "0"
    assert ran.pip[0] == "install"
    assert ran.pip[-1] == f"{ROOT}[parity,openvino]"
    assert "max_drop" in ran.summary
    cases = ElementTree.parse(ran.outputs["junit"]).getroot()
    assert not list(cases.iter("failure"))
    assert list(cases.iter("testcase"))
    document = json.loads(Path(ran.outputs["document"]).read_text())
    documents.validator("parity").validate(document)
    assert document["corruptions"] == ["fog", "jpeg_compression"]


def test_a_fail(place: Place) -> None:
    ran = github(place, bundle="broken.onnx", **WHAT)
    assert ran.code == 3, ran.log
    assert ran.outputs["verdict"] == "fail"
    assert ran.outputs["exit-code"] == "3"
    assert "max_drop" in ran.summary
    assert list(ElementTree.parse(ran.outputs["junit"]).getroot().iter("failure"))


def test_no_verdict(place: Place) -> None:
    ran = github(place, bundle="absent.onnx", **WHAT)
    assert ran.code == 2
    assert ran.outputs["verdict"] == "error"
    assert ran.outputs["junit"] == ""
    assert "gave no verdict, exit code 2" in ran.summary
    assert "absent.onnx" in ran.log


def test_extras_and_the_second_time(place: Place) -> None:
    for extras in ("parity", "parity", "parity,litert"):
        ran = github(place, bundle="absent.onnx", extras=extras)
    assert [line for line in ran.pip if "[" in line] == [
        f"{ROOT}[parity]",
        f"{ROOT}[parity,litert]",
    ]


def test_the_folder_that_paths_are_relative_to(place: Place) -> None:
    (place.folder / "models").mkdir()
    (place.folder / "models" / "here.onnx").symlink_to(classifiers.float_onnx())
    what = {"data": "../images.npz", "preprocessing": "../pixels.toml", "reference": "absent.onnx"}
    ran = github(place, bundle="here.onnx", working_directory="models", **what)
    assert "absent.onnx" in ran.log
    assert "here.onnx" not in ran.log.split("error:")[-1]
    assert ran.code == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_inputs_are_only_text(place: Place, text: str) -> None:
    """All of them at once: each is wrong as a name, and none of it is run."""
    names = [name for name in ACTION["inputs"] if name not in ("python", "working-directory")]
    ran = github(place, **dict.fromkeys(names, text))
    assert ran.code == (1 if text == "--help" else 2), ran.log  # help ends with 0, but is no pass
    assert ran.outputs["verdict"] == "error"
    assert ran.outputs["exit-code"] == str(ran.code)
    assert not place.pwned()
    # What the log says between these two lines is no command for the runner.
    first, last = (ran.log.index(f"::{word}") for word in ("stop-commands::", token(ran.log)))
    assert first < last


def token(log: str) -> str:
    return re.findall(r"^::stop-commands::([0-9a-f]{32})$", log, re.MULTILINE)[0] + "::"


def gitlab(place: Place, **variables: str) -> tuple[int, str]:
    """The job's script, as the runner's bash gets it, with its variables."""
    job = GITLAB["robustness"]
    own = {**job["variables"], **variables}
    project = {"CI_PROJECT_DIR": str(place.folder)}
    own = {name: value.replace("$CI_PROJECT_DIR", str(place.folder)) for name, value in own.items()}
    own["EDGEKIT_CACHE"] = str(place.cache)  # the tests' own
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -eo pipefail", *job["script"]])],
        cwd=place.folder,
        env=place.environment(**project, **own),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("bundle", "code"), [("float.onnx", 0), ("broken.onnx", 3)])
def test_gitlab(place: Place, bundle: str, code: int) -> None:
    names: dict[str, str] = {
        "DATA": "images.npz",
        "PREPROCESSING": "pixels.toml",
        "BUNDLE": bundle,
    }
    got, log = gitlab(place, **names)
    assert got == code, log
    artifacts: dict[str, Any] = GITLAB["robustness"]["artifacts"]
    report = place.folder / artifacts["reports"]["junit"]
    failed = list(ElementTree.parse(report).getroot().iter("failure"))
    assert bool(failed) == bool(code)
    assert all("max_drop" in (place.folder / path).read_text() for path in artifacts["paths"])


def test_gitlab_installs_what_it_uses() -> None:
    job = GITLAB["robustness"]
    assert [shlex.split(line) for line in job["before_script"]] == [["pip", "install", "$EDGEKIT"]]
    assert job["variables"]["EDGEKIT"].startswith("edgekit[parity,openvino] @ git+https://")


@pytest.mark.parametrize("text", HOSTILE[:6:2])
def test_gitlab_takes_hostile_names_as_text(place: Place, text: str) -> None:
    code, log = gitlab(place, **dict.fromkeys(("BUNDLE", "REFERENCE", "DATA", "BUDGETS"), text))
    assert code == 2, log
    assert not place.pwned()
