"""The wheel that `make wheel-aarch64` compiles, installed there by pip."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.arm.conftest import Table
from tests.arm.userland import SOURCE, Userland
from tools.try_wheel import TRIAL

# What `edgekit build` needs, which the extra [openvino] does not bring.
MISSING = {"torch", "nncf", "onnx", "onnxruntime"}


@pytest.fixture(scope="module")
def environment(userland: Userland, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment there, with the wheel and OpenVINO."""
    wheels = list((SOURCE / "dist").glob("edgekit-*_aarch64.whl"))
    if len(wheels) != 1:
        pytest.skip("dist/ has no wheel for aarch64: make wheel-aarch64")
    assert "-py3-none-manylinux_2_34_aarch64." in wheels[0].name  # of Debian 12's compiler
    folder = tmp_path_factory.mktemp("wheel")
    in_environment(userland, folder, "python3", "-m", "venv", folder / "venv")
    install = ("-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check")
    found = ("--find-links", userland.wheels("openvino"), f"{wheels[0]}[openvino]")
    in_environment(userland, folder, folder / "venv/bin/python", *install, *found)
    return folder


def in_environment(
    userland: Userland, folder: Path, *command: str | Path, codes: tuple[int, ...] = (0,)
) -> str:
    """What a command there prints, without edgekit's sources."""
    binds = [folder, userland.wheels("openvino")]
    done: subprocess.CompletedProcess[str] = userland.run(command, binds=binds, packages=())
    assert done.returncode in codes, done.stderr[-2000:]
    return done.stdout


def test_it_works_away_from_the_checkout(userland: Userland, environment: Path) -> None:
    python = environment / "venv/bin/python"
    tried = in_environment(userland, environment, python, "-c", TRIAL, "codebook", "openvino")
    assert "openvino-arm" in json.loads(tried)["targets"]


def test_the_doctor_misses_only_what_builds_need(
    userland: Userland, environment: Path, table: Table
) -> None:
    edgekit = environment / "venv/bin/edgekit"
    told = in_environment(userland, environment, edgekit, "doctor", "--json", codes=(4,))
    checks = {one["name"]: one for one in json.loads(told)["checks"]}
    assert {name for name, one in checks.items() if one["status"] == "missing"} == MISSING
    assert [one for one in checks.values() if one["status"] == "warning"] == []
    native, operator = (checks[name] for name in ("native library", "OpenVINO operator"))
    assert (native["status"], operator["status"]) == ("ok", "ok")
    assert "lookup correct (neondot" in native["found"]  # in doubles for so small a codebook
    table.add("wheel: edgekit doctor", f"{native['found']}; operator {operator['found']}")
