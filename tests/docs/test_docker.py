"""The Dockerfiles, as far as that can be told without building them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
every_file = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Its instructions, without comments, each on a line."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line]


def sent() -> set[str]:
    """What of the checkout's top level reaches the builder."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    return {line[1:] for line in lines if line.startswith("!")}


def test_both_are_there() -> None:
    assert [path.stem for path in DOCKERFILES] == ["ci", "device"]


@every_file
def test_what_is_copied_exists_and_is_sent(path: Path) -> None:
    taken = []
    for name, rest in instructions(path):
        if name == "COPY":
            taken += shlex.split(rest)[:-1]
        taken += re.findall(r"--mount=type=bind,source=([^,\s]+)", rest)
    assert {"CMakeLists.txt", "pyproject.toml", "edgekit", "constraints.txt"} <= set(taken)
    for name in taken:
        assert (ROOT / name).exists(), name
        assert name in sent(), f"{name} is kept out by .dockerignore"


def test_nothing_else_is_sent() -> None:
    copied = set()
    for path in DOCKERFILES:
        text = path.read_text("utf-8")
        copied |= {name for name in sent() if re.search(rf"[ =]{re.escape(name)}\b", text)}
    assert copied == sent()


@every_file
def test_the_wheel_can_be_built_from_what_is_copied(path: Path) -> None:
    copied = {
        word
        for name, rest in instructions(path)
        if name == "COPY"
        for word in shlex.split(rest)[:-1]
    }
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= copied
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    folders = {
        name.split("/")[0] for name in re.findall(r"(?:SUBDIRECTORY|DIRECTORY) (\w+)/", text)
    }
    assert folders == {"calib", "targets"}
    assert folders <= copied


@every_file
def test_releases_and_extras_are_those_of_the_project(path: Path) -> None:
    bases = {rest.split()[0] for name, rest in instructions(path) if name == "FROM"}
    (base,) = bases
    version = re.fullmatch(r"python:3\.(\d+)-slim-bookworm", base)
    assert version
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    assert least
    assert int(version[1]) >= int(least[1])
    defaults = dict(rest.split("=", 1) for name, rest in instructions(path) if name == "ARG")
    extras = defaults.get("EXTRAS", defaults.get("RUNTIME", "")).split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
    for argument in defaults:
        assert f"${argument}" in path.read_text("utf-8"), f"{argument} is never used"


@every_file
def test_nothing_runs_as_root(path: Path) -> None:
    found = instructions(path)
    last = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    users = [rest for name, rest in found[last:] if name == "USER"]
    assert users == ["1000"]
    assert any("useradd --uid 1000" in rest for _, rest in found[last:])
