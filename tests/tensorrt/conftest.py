"""Fixtures that build the plugin once, and skip with a reason where something is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tensorrt import kit as nvidia
from tests.tensorrt.devices import Device

SOURCES = Path(__file__).parents[2] / "targets" / "tensorrt"
SMS = "87;90;110"


@pytest.fixture(scope="session")
def kit() -> Path:
    folder = nvidia.location()
    if folder is None:
        pytest.skip(f"{nvidia.VARIABLE} is not set: 'make test-tensorrt' prepares its folder")
    return folder


@pytest.fixture(scope="session")
def cmake() -> str:
    found = shutil.which("cmake")
    if found is None:
        pytest.skip("no cmake: pip install cmake")
    return found


@pytest.fixture(scope="session")
def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("no nvcc: install the CUDA toolkit")
    return found


@pytest.fixture(scope="session")
def headers(kit) -> Path:
    return kit / "headers" / "kernel_lens" / "include" / "tensorrt"


def configure(cmake: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [cmake, "-S", SOURCES, "-B", folder, *options],
        capture_output=True,
        text=True,
        check=False,
    )


def build(cmake: str, folder: Path, *options: str) -> Path:
    done = configure(cmake, folder, "-DEDGEKIT_TESTS=ON", *options)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([cmake, "--build", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return folder


@pytest.fixture(scope="session")
def built(cmake, nvcc, headers, tmp_path_factory) -> Path:
    """The build folder of the plugin for this machine."""
    return build(
        cmake,
        tmp_path_factory.mktemp("plugin"),
        f"-DTENSORRT_INCLUDE_DIR={headers}",
        f"-DEDGEKIT_CUDA_ARCHITECTURES={SMS}",
    )


@pytest.fixture(scope="session")
def built_for_arm(cmake, nvcc, headers, kit, tmp_path_factory) -> Path:
    """The build folder of the plugin for a Jetson."""
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("no cross compiler: apt-get install g++-aarch64-linux-gnu")
    (cudart,) = (kit / "cudart-aarch64").rglob("libcudart_static.a")
    return build(
        cmake,
        tmp_path_factory.mktemp("plugin-arm"),
        f"-DCMAKE_TOOLCHAIN_FILE={SOURCES.parent / 'aarch64-linux-gnu.cmake'}",
        f"-DTENSORRT_INCLUDE_DIR={headers}",
        f"-DEDGEKIT_CUDART={cudart}",
        f"-DEDGEKIT_CUDA_ARCHITECTURES={SMS}",
    )


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "root")
