"""A plugin that goes with a bundle for TensorRT: compiled beforehand, or as its sources."""

import dataclasses
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from edgekit.bundle.engine import PLUGIN
from edgekit.bundle.store import open_bundle
from edgekit.compilers import device_build
from edgekit.core.errors import UsageError
from edgekit.core.host import host_arch
from edgekit.devices.engine import check_engine_build
from edgekit.steps.bundling import _with_plugin
from tests import bundles
from tests.tensorrt.devices import any_arch, compiled, packed, refused


def library(folder: Path, source: str, compiler: str = "gcc") -> Path:
    """A shared library made of ``source``; what it does is never called."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    path = folder / "plugin.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source.encode(), check=True)
    return path


EXPORTS = "int getCreators(void){return 0;} int edgekit_tensorrt_built_with(void){return 0;}"


def test_a_compiled_plugin_goes_with_the_bundle(tmp_path, device):
    """Then the device needs neither cmake nor nvcc."""
    scratch = tmp_path / "made"
    scratch.mkdir()
    compiled(scratch)
    plugin = library(tmp_path, EXPORTS)
    device_build.carry_plugin(scratch, plugin, any_arch("jetson-orin-nano"), size=bundles.SIZE)
    for said in ("as it came with the bundle", "up to date"):
        run = device.build(scratch, "--engine-only")
        assert run.returncode == 0, run.stderr
        assert f"plugin: {said}" in run.stdout
    (call,) = device.calls()
    carried = scratch.with_name("made.build") / "plugin" / PLUGIN
    assert f"--staticPlugins={carried}" in call
    assert carried.read_bytes() == plugin.read_bytes()
    (scratch / PLUGIN).write_bytes(b"changed")
    shutil.rmtree(scratch.with_name("made.build"))
    refused(device.build(scratch), 2, "is not the plugin that came with it")


def test_a_plugin_that_does_not_fit_is_refused(tmp_path):
    compiled(tmp_path)
    here = any_arch("jetson-orin-nano")
    with pytest.raises(UsageError, match="is not edgekit's TensorRT plugin"):
        device_build.carry_plugin(tmp_path, library(tmp_path, "int x;"), here, size=bundles.SIZE)
    with pytest.raises(UsageError, match="cannot read plugin"):
        device_build.carry_plugin(tmp_path, tmp_path / "none.so", here, size=bundles.SIZE)
    other = dataclasses.replace(here, arch="aarch64" if host_arch() == "x86_64" else "x86_64")
    with pytest.raises(UsageError, match=f"is for {host_arch()}, target jetson-orin-nano is"):
        device_build.carry_plugin(tmp_path, library(tmp_path, EXPORTS), other, size=bundles.SIZE)
    (tmp_path / device_build.PLUGIN_SOURCE).unlink()
    with pytest.raises(UsageError, match="needs no plugin"):
        device_build.carry_plugin(tmp_path, library(tmp_path, EXPORTS), here, size=bundles.SIZE)


def test_the_source_has_all_that_a_device_compiles(tmp_path):
    archive = tmp_path / "source.tar.gz"
    archive.write_bytes(device_build.plugin_source())
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        packed.extractall(tmp_path, filter="data")
    assert "targets/tensorrt/CMakeLists.txt" in names
    assert "targets/codebook/cuda/codebook_cuda.cu" in names
    assert not any("build_on_device" in name or name.startswith("/") for name in names)
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake")
    # Without TensorRT's headers it must stop and say so.
    run = subprocess.run(
        [cmake, "-S", tmp_path / "targets/tensorrt", "-B", tmp_path / "b"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "no NvInferRuntime.h" in " ".join(run.stderr.split())


def test_a_bundle_with_a_compiled_plugin_declares_it(tmp_path):
    scratch = tmp_path / "made"
    scratch.mkdir()
    descriptor = any_arch("jetson-orin-nano")
    plugin = library(tmp_path, EXPORTS)
    made = compiled(scratch, descriptor=descriptor)
    made = _with_plugin(str(plugin), made, descriptor, bundles.SIZE)
    path = packed(made, descriptor, tmp_path / "b")
    opened = open_bundle(path)
    assert (opened.manifest.plugins, opened.manifest.arch) == ((PLUGIN,), host_arch())
    check_engine_build(opened)
