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

PROGRAMS = 10
# The leak sanitizer stops its process as a debugger does, which QEMU has no system call for.
SANITIZED = ("/usr/bin/env", "ASAN_OPTIONS=detect_leaks=0")


def built(userland: Userland, folder: str, sanitizers: str = "") -> Path:
    """The folder of a cross-built tree whose tests run in the userland."""
    for tool in ("cmake", "aarch64-linux-gnu-g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install cmake g++-aarch64-linux-gnu")
    build = SOURCE / "build" / folder
    toolchain = SOURCE / "tests" / "native" / "aarch64.cmake"
    emulator = ";".join(map(str, (userland.enter, *(SANITIZED if sanitizers else ()))))
    settings = (
        *(f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DEDGEKIT_EMULATOR={emulator}"),
        *("-DEDGEKIT_TESTS=ON", "-DEDGEKIT_OPENVINO=OFF", f"-DEDGEKIT_SANITIZE={sanitizers}"),
        f"-DEDGEKIT_TEST_ARGUMENTS={'--quick' if sanitizers else ''}",  # as `make native-test`
    )
    configure: list[str | Path] = ["cmake", "-S", SOURCE, "-B", build, *settings]
    compile_all: list[str | Path] = ["cmake", "--build", build, "--parallel", "2"]
    for command in (configure, compile_all):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return build


def all_passed(build: Path) -> tuple[str, int]:
    """Run all programs of a tree, which must pass: what ctest prints, and the number of checks."""
    environment = {**os.environ, "GUEST_BINDS": f"-b {SOURCE}"}
    # Not `tiling`: it computes on the host what the GPU does, the same wherever that is.
    command: list[str | Path] = ["ctest", "--test-dir", build, "--verbose", "-E", "^tiling$"]
    done = subprocess.run(
        [*command, "--timeout", "3600"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.findall(r"^ *\d+/\d+ Test +#\d+: \w+ \.+ +Passed", done.stdout, re.MULTILINE)
    assert len(passed) == PROGRAMS
    return done.stdout, sum(map(int, re.findall(r"(\d+) checks, 0 failed", done.stdout)))


def test_all_native_tests(userland: Userland, table: Table) -> None:
    printed, checks = all_passed(built(userland, "arm-native"))
    assert "neondot" in printed  # the emulated CPU has dot products
    table.add("native tests", f"{PROGRAMS} programs, {checks:,} checks, kernels: neondot, portable")


def test_all_native_tests_under_sanitizers(userland: Userland, table: Table) -> None:
    printed, checks = all_passed(built(userland, "arm-native-asan", "address,undefined"))
    assert "neondot" in printed
    table.add(
        "native tests, ASan and UBSan", f"{PROGRAMS} programs, {checks:,} checks, no leaks sought"
    )
