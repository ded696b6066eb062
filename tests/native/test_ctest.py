"""Native tests in builds of their own: under the thread sanitizer, and for ARM in an emulator.

`make native-test` runs them with the address and undefined-behavior sanitizers; a plain build of
the project's CMakeLists.txt with -DEDGEKIT_TESTS=ON runs every size at full speed.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


def run_ctest(kind: str, targets: list[str], *settings: str) -> None:
    """Configures, builds and runs the tests of `targets` in build/native-tests/<kind>."""
    build = SOURCE / "build/native-tests" / kind
    common = ["-DEDGEKIT_TESTS=ON", "-DEDGEKIT_PLUGINS=OFF"]
    names = "|".join(target.removeprefix("test_") for target in targets)
    steps: list[list[str | Path]] = [
        ["cmake", "-S", SOURCE, "-B", build, *common, *settings],
        ["cmake", "--build", build, "--parallel", str(os.cpu_count()), "--target", *targets],
        ["ctest", "--test-dir", build, "--output-on-failure", "-R", f"^({names})$"],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"tests passed, 0 tests failed out of {len(targets)}" in done.stdout


def test_threads_do_not_race():
    run_ctest("thread", ["test_threads"], "-DEDGEKIT_SANITIZE=thread")


def test_arm_kernels_in_an_emulator():
    for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64-static"):
        if shutil.which(tool) is None:
            pytest.skip(
                f"{tool} is missing: apt-get install g++-aarch64-linux-gnu qemu-user-static"
            )
    run_ctest(
        "aarch64",
        ["test_abi", "test_bounds", "test_kernels", "test_paths", "test_product", "test_threads"],
        f"-DCMAKE_TOOLCHAIN_FILE={SOURCE}/tests/native/aarch64.cmake",
        "-DEDGEKIT_TEST_ARGUMENTS=--quick",
    )
