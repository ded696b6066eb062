"""All of the native library's tests, with NEON's kernels on a Cortex-A76."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.arm.conftest import Table
from tests.arm.userland import SOURCE, Userland


def built(userland: Userland) -> Path:
    """The folder of a cross-built tree whose tests run in the userland."""
    for tool in ("cmake", "aarch64-linux-gnu-g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install cmake g++-aarch64-linux-gnu")
    build = SOURCE / "build" / "arm-native"
    toolchain = SOURCE / "tests" / "native" / "aarch64.cmake"
    settings = (
        *(f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DEDGEKIT_EMULATOR={userland.enter}"),
        *("-DEDGEKIT_TESTS=ON", "-DEDGEKIT_OPENVINO=OFF", "-DEDGEKIT_TEST_ARGUMENTS=--quick"),
    )
    configure: list[str | Path] = ["cmake", "-S", SOURCE, "-B", build, *settings]
    compile_all: list[str | Path] = ["cmake", "--build", build, "--parallel", "2"]
    for command in (configure, compile_all):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return build


def test_all_native_tests(userland: Userland, table: Table) -> None:
    build = built(userland)
    environment = {**os.environ, "GUEST_BINDS": f"-b {SOURCE}"}
    # Not `tiling`: it computes on the host what the GPU does, the same wherever that is.
    command: list[str | Path] = ["ctest", "--test-dir", build, "--verbose", "-E", "^tiling$"]
    done = subprocess.run(
        [*command, "--timeout", "3600"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "neondot" in done.stdout  # the emulated CPU has dot products
    passed = len(re.findall(r"^ *\d+/\d+ Test +#\d+: \w+ \.+ +Passed", done.stdout, re.MULTILINE))
    assert passed == 10
    checks = sum(map(int, re.findall(r"(\d+) checks, 0 failed", done.stdout)))
    table.add("native tests", f"{passed} programs, {checks:,} checks, kernels: neondot, portable")
