"""The plugin library: what it exports, that TensorRT's registries take it, and that it crosses."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.bundle.store import elf_arch
from tests.tensorrt.conftest import SOURCES, configure

PLUGIN = "libedgekit_tensorrt.so"
KERNELS = "libedgekit_codebook_cuda.so"
PUBLIC = {"getCreators", "setLoggerFinder", "edgekit_tensorrt_built_with"}
# Loads the library through a registry and creates a plugin of each kind.
PROBE = """
import sys, numpy as np, tensorrt_lean_bindings as trt
trt.Logger(trt.Logger.ERROR)
registry = trt.get_plugin_registry()
assert registry.get_creator("CodebookLookup", "1", "edgekit") is None
registry.load_library(sys.argv[1])
creator = registry.get_creator("CodebookLookup", "1", "edgekit")
fields = {field.name: field.type for field in creator.field_names}
assert fields == {"metric": trt.PluginFieldType.CHAR, "margin": trt.PluginFieldType.INT32}, fields
def make(metric, margin):
    return creator.create_plugin("x", trt.PluginFieldCollection([
        trt.PluginField("metric", metric, trt.PluginFieldType.CHAR),
        trt.PluginField("margin", np.array([margin], np.int32), trt.PluginFieldType.INT32),
    ]), trt.TensorRTPhase.RUNTIME)
for metric in (b"dot", b"l2"):
    for margin in (0, 1):
        assert make(metric, margin) is not None
assert make(b"cosine", 0) is None
assert make(b"dot", 2) is None
print(trt.__version__)
"""


def symbols(tool: str, library: Path, *options: str) -> set[str]:
    done = subprocess.run(
        [tool, "-D", *options, library], capture_output=True, text=True, check=True
    )
    return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}


def check_exports(tool: str, folder: Path) -> None:
    found = symbols(tool, folder / PLUGIN, "--defined-only")
    kernel = {name for name in found if name.startswith("edgekit_codebook_cuda_")}
    assert found - kernel == PUBLIC
    assert len(kernel) == 6
    undefined = symbols(tool, folder / PLUGIN, "--undefined-only")
    assert undefined
    assert not [name for name in undefined if re.search("nvinfer|tensorrt|cuda", name, re.I)]
    # The other library shares the list of exports and has no TensorRT part.
    assert symbols(tool, folder / KERNELS, "--defined-only") == kernel


def needed(tool: str, library: Path) -> set[str]:
    done = subprocess.run([tool, "-d", library], capture_output=True, text=True, check=True)
    return set(re.findall(r"NEEDED.*\[(.*)\]", done.stdout))


def test_exports_and_nothing_of_tensorrt_wanted(built):
    check_exports("nm", built)
    assert not [
        name for name in needed("readelf", built / PLUGIN) if "nv" in name or "cuda" in name
    ]
    assert str(SOURCES.parents[1]).encode() not in (built / PLUGIN).read_bytes()


def test_it_is_driven_as_tensorrt_does(built):
    done = subprocess.run(
        [built / "drive_plugin", built / PLUGIN], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "create, query, serialize: ok" in done.stdout
    assert re.search("enqueue: (ok|not run, no CUDA device)", done.stdout)


@pytest.mark.parametrize("release", ["10.15", "11.4"])
def test_a_registry_takes_it(built, kit, release):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, built / PLUGIN],
        env={**os.environ, "PYTHONPATH": str(kit / f"lean-{release}")},
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'tensorrt_lean_bindings.tensorrt_lean'" in done.stderr:
        pytest.skip("the kit's packages are for another Python")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(release)


def test_it_crosses_to_a_jetson(built_for_arm):
    library = built_for_arm / PLUGIN
    data = library.read_bytes()
    assert elf_arch(data, PLUGIN) == "aarch64"
    assert data[4] == 2  # ELF class: 64 bits
    check_exports("aarch64-linux-gnu-nm", built_for_arm)
    libraries = needed("aarch64-linux-gnu-readelf", library)
    assert libraries <= {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6",
                         "ld-linux-aarch64.so.1"}  # fmt: skip


def test_the_crossed_one_runs_in_an_emulator(built_for_arm):
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("no emulator: apt-get install qemu-user-static")
    for command in (["drive_plugin", str(built_for_arm / PLUGIN)], ["test_tiling"]):
        done = subprocess.run(
            [emulator, "-L", "/usr/aarch64-linux-gnu", built_for_arm / command[0], *command[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ok" in done.stdout


def refused(cmake, folder, *options: str) -> str:
    done = configure(cmake, folder, *options)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_cmake_says_what_is_missing(cmake, nvcc, headers, tmp_path):
    include = f"-DTENSORRT_INCLUDE_DIR={headers}"
    assert "no NvInferRuntime.h" in refused(cmake, tmp_path / "a")
    said = refused(cmake, tmp_path / "b", include, "-DEDGEKIT_CUDA_ARCHITECTURES=31")
    assert "cannot compile for SM 31" in said
    old = tmp_path / "old"
    old.mkdir()
    (old / "NvInferRuntime.h").touch()
    (old / "NvInferVersion.h").write_text("#define NV_TENSORRT_MAJOR 8\n")
    said = refused(cmake, tmp_path / "c", f"-DTENSORRT_INCLUDE_DIR={old}")
    assert "plugins need 10.0 or later" in said


def test_cmake_wants_the_cuda_runtime_of_the_other_machine(cmake, nvcc, headers, tmp_path):
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("no cross compiler: apt-get install g++-aarch64-linux-gnu")
    toolchain = Path(__file__).parents[2] / "targets" / "aarch64-linux-gnu.cmake"
    said = refused(
        cmake,
        tmp_path,
        f"-DTENSORRT_INCLUDE_DIR={headers}",
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain}",
    )
    assert "no libcudart_static.a for aarch64" in said
