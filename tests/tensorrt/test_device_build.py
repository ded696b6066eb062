"""What a host prepares for a TensorRT device, and the script that builds there.

The script runs here for real, against a made-up root folder with the release files of a Jetson.
Only trtexec is stood in for, by a program that says its release and copies the ONNX file: nothing
here is a statement about TensorRT.
"""

import dataclasses
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.bundle.engine import ENGINE, MODEL, PLUGIN, SCRIPT, EngineState, adopt_engine
from edgekit.bundle.manifest import Manifest, ModelInput
from edgekit.bundle.store import open_bundle, write_bundle
from edgekit.compilers import device_build
from edgekit.compilers.base import compiler
from edgekit.compilers.tensorrt import lookup_form
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.host import host_arch
from edgekit.devices.engine import check_engine_build
from edgekit.graph.variants import lookup_node
from edgekit.runtime.finish_engine import main as device_main
from edgekit.runtime.runner import open_runner, run_settings
from edgekit.steps.bundling import _with_plugin
from edgekit.targets.descriptor import descriptor_names, load_descriptor
from edgekit.targets.tensorrt_releases import TensorRTFacts
from tests import bundles

JETSONS = ("jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-thor", "jetson-xavier")


def any_arch(target: str):
    return dataclasses.replace(load_descriptor(target), arch="any")


def compiled(folder: Path, target: str = "jetson-orin-nano", descriptor=None):
    made = bundles.made()
    descriptor = descriptor or any_arch(target)
    return compiler("tensorrt")(made.onnx, made.card.preprocessing, descriptor, folder)


def bundle(folder: Path, target: str = "jetson-orin-nano") -> Path:
    """A bundle as `edgekit build` writes it."""
    scratch = folder / "scratch"
    scratch.mkdir()
    descriptor = any_arch(target)
    files = compiled(scratch, descriptor=descriptor)
    card = bundles.made().card
    manifest = Manifest(
        model={},
        classes=len(card.classes),
        preprocessing=card.preprocessing,
        input=ModelInput(files.input_name, *card.preprocessing.size),
        target=descriptor,
        arch=files.arch,
        main=files.main,
        plugins=files.plugins,
        runtime=files.runtime,
        sections=files.sections,
    )
    path = folder / target
    write_bundle(path, manifest, {file.name: file for file in files.files}, card.classes)
    return path


def test_every_jetson_is_described():
    assert set(JETSONS) | {"generic-cuda"} <= set(descriptor_names())
    forms = {name: load_descriptor(name).tensorrt.form for name in JETSONS}
    assert forms == {
        "jetson-agx-orin": "plugin",
        "jetson-orin-nano": "plugin",
        "jetson-orin-nx": "plugin",
        "jetson-thor": "function",
        "jetson-xavier": "inline",
    }


def test_facts_refuse_nonsense():
    good: dict[str, Any] = {"sm": (87,), "tensorrt": "10.3", "before": "10.7", "cuda": "12.6"}
    assert TensorRTFacts(**good).covers("10.3.0")
    assert not TensorRTFacts(**good).covers("10.7.0")
    assert not TensorRTFacts(**good).covers("8.6.2")
    for change in (
        {"tensorrt": "ten"}, {"before": "10.3"}, {"sm": ()}, {"sm": (8,)}, {"jetpack": "9.0"},
        {"trtexec": "x; rm -rf /"},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            TensorRTFacts(**{**good, **change})


@pytest.mark.parametrize(
    ("target", "nodes", "functions", "plugin"),
    [("jetson-thor", 1, 1, True), ("jetson-orin-nano", 1, 0, True), ("jetson-xavier", 0, 0, False)],
)
def test_the_graph_has_the_form_of_the_release(tmp_path, target, nodes, functions, plugin):
    made = compiled(tmp_path, target)
    model = onnx.load(tmp_path / MODEL)
    assert (lookup_node(model) is not None) == bool(nodes)
    assert len(model.functions) == functions
    assert (tmp_path / device_build.PLUGIN_SOURCE in made.files) == plugin
    assert made.main == MODEL
    assert made.sections == {"engine": EngineState().to_section()}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_same_input_gives_the_same_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        compiled(tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_graph_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    from tests.quantize.graphs import quantized

    path = tmp_path / "odd.onnx"
    onnx.save(quantized(), path)
    with pytest.raises(EdgekitError, match=r"odd\.onnx does not fit .* the first: .*node_relu_q"):
        compiler("tensorrt")(
            path, bundles.made().card.preprocessing, any_arch("jetson-thor"), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_plugins_need_tensorrt_10():
    facts = load_descriptor("jetson-xavier").tensorrt
    assert facts is not None
    with pytest.raises(UsageError, match=r"TensorRT 8\.5, plugins need 10\.0"):
        lookup_form(facts, "plugin", "jetson-xavier")
    assert lookup_form(facts, "auto", "jetson-xavier") == "inline"


def test_a_pending_bundle_says_what_to_run(tmp_path, monkeypatch):
    path = bundle(tmp_path)
    opened = open_bundle(path)
    assert EngineState.of(opened.manifest) == EngineState()
    tensorrt = pytest.importorskip("tensorrt", reason="TensorRT's Python package is not installed")
    assert tensorrt
    with pytest.raises(ToolchainMissing, match="build_on_device"):
        open_runner(opened, run_settings(opened.manifest.target), None)


# The script, rehearsed.


class Device:
    """A root folder that looks like a Jetson's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.set_release(36)
        self.set_tensorrt("100300")

    def set_release(self, release: int) -> None:
        path = self.root / "etc" / "nv_tegra_release"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# R{release} (release), REVISION: 4.3, GCID: 1, BOARD: generic\n")

    def set_tensorrt(self, digits: str, fail: bool = False) -> None:
        path = self.root / "usr" / "src" / "tensorrt" / "bin" / "trtexec"
        path.parent.mkdir(parents=True, exist_ok=True)
        end = 'echo "[E] out of luck"; exit 1' if fail else 'cp "$onnx" "$engine"'
        path.write_text(
            "#!/bin/bash\n"
            f'echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{digits}] # trtexec"\n'
            'if [ "$1" = --help ]; then echo "  --stronglyTyped"; exit 0; fi\n'
            'for word in "$@"; do case "$word" in\n'
            '  --onnx=*) onnx="${word#*=}" ;; --saveEngine=*) engine="${word#*=}" ;;\n'
            "esac; done\n"
            'echo "$@" >>"$EDGEKIT_ROOT/calls"\n' + end + "\n"
        )
        path.chmod(0o755)

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def build(self, path: Path, *options: str, search: str = "/usr/bin:/bin") -> object:
        return subprocess.run(
            ["bash", str(path / SCRIPT), *options],
            env={"PATH": search, "EDGEKIT_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "root")


def refused(run, code: int, *parts: str) -> None:
    assert run.returncode == code, run.stderr
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def test_the_script_is_valid_and_explains_itself(tmp_path):
    compiled(tmp_path)
    script = tmp_path / SCRIPT
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "$$" not in text
    assert "JetPack 6.1" in text
    assert str(Path(__file__).parents[2]) not in text


def test_it_checks_the_device_first(tmp_path, device):
    path = bundle(tmp_path)
    run = device.build(path, "--check")
    assert run.returncode == 0, run.stderr
    assert "TensorRT 10.3.0, for jetson-orin-nano" in run.stdout
    assert device.calls() == []
    device.set_release(35)
    refused(device.build(path), 2, "Linux R35", "JetPack 6.2 (R36)")
    device.set_release(36)
    for digits, release in (("8602", "8.6.2"), ("100700", "10.7.0"), ("101303", "10.13.3")):
        device.set_tensorrt(digits)
        refused(device.build(path), 2, f"TensorRT {release}", "10.3 up to 10.7")
    (device.root / "usr/src/tensorrt/bin/trtexec").unlink()
    refused(device.build(path), 4, "no trtexec", "apt-get install libnvinfer-bin")
    (device.root / "etc/nv_tegra_release").unlink()
    refused(device.build(path), 2, "not a Jetson")
    assert not path.with_name(f"{path.name}.build").exists()


def test_it_refuses_another_architecture(tmp_path, device):
    compiled(tmp_path, descriptor=dataclasses.replace(any_arch("jetson-thor"), arch="aarch64"))
    if subprocess.run(["uname", "-m"], capture_output=True, text=True).stdout.strip() == "aarch64":
        pytest.skip("this machine is aarch64")
    refused(device.build(tmp_path), 2, "jetson-thor (aarch64)", "this machine is")


def test_it_refuses_a_changed_model(tmp_path, device):
    path = bundle(tmp_path)
    (path / MODEL).write_bytes(b"changed")
    refused(device.build(path), 2, "is not the file", "copy the bundle again")


def test_it_builds_once_and_again_when_something_changed(tmp_path, device):
    """Xavier's bundle: no plugin to compile."""
    device.set_release(35)
    device.set_tensorrt("8502")
    path = bundle(tmp_path, "jetson-xavier")
    for _ in range(2):
        run = device.build(path, "--engine-only")
        assert run.returncode == 0, run.stderr
    assert "engine: up to date" in run.stdout
    (call,) = device.calls()
    assert "--minShapes=images:1x24x32x3" in call
    assert "--fp16" not in call
    work = path.with_name(f"{path.name}.build")
    assert (work / ENGINE).read_bytes() == (path / MODEL).read_bytes()
    device.set_tensorrt("8503")
    device.build(path, "--engine-only")
    assert len(device.calls()) == 2


def test_a_failing_trtexec_leaves_no_engine(tmp_path, device):
    device.set_release(35)
    device.set_tensorrt("8502", fail=True)
    path = bundle(tmp_path, "jetson-xavier")
    run = device.build(path, "--engine-only")
    assert run.returncode == 1
    assert "out of luck" in run.stderr
    assert "trtexec.log" in run.stderr.splitlines()[-1]
    assert not list(path.with_name(f"{path.name}.build").glob("engine*"))


def test_without_a_compiler_it_says_what_to_install(tmp_path, device):
    path = bundle(tmp_path)
    tools = tmp_path / "tools"  # all that the script needs, but cmake
    tools.mkdir()
    for name in ("bash", "uname", "sed", "sort", "head", "printf", "sha256sum", "dirname", "grep",
                 "mkdir", "cat", "rm", "tar", "gzip", "tr"):  # fmt: skip
        found = shutil.which(name, path="/usr/bin:/bin")
        if found:
            (tools / name).symlink_to(found)
    refused(device.build(path, search=str(tools)), 4, "no cmake", "apt-get install cmake")


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


def test_adopting_an_engine(tmp_path):
    path = bundle(tmp_path)
    engine, plugin = tmp_path / "made.plan", tmp_path / "made.so"
    engine.write_bytes(b"an engine")
    plugin.write_bytes(Path("/proc/self/exe").resolve().read_bytes()[:64])
    with pytest.raises(UsageError, match=r"built with TensorRT 10\.8\.0"):
        adopt_engine(path, engine, "10.8.0", plugin)
    assert device_main(["adopt", str(path), str(engine), "10.3.0", str(plugin)]) == 0
    opened = open_bundle(path)
    assert opened.manifest.main == ENGINE
    assert opened.manifest.plugins == (PLUGIN,)
    assert opened.manifest.runtime.version == "10.3.0"
    assert opened.manifest.runtime.match == "exact"
    assert EngineState.of(opened.manifest) == EngineState("10.3.0")
    assert device_main(["adopt", str(path), str(engine), "10.3.0", str(plugin)]) == 0  # again
    with pytest.raises(UsageError, match="takes no TensorRT engine"):
        adopt_engine(bundles.bundle("onnxruntime-cpu"), engine, "10.3.0")


def test_the_device_steps_fail_in_one_line(tmp_path, capsys):
    assert device_main(["selftest", str(tmp_path)]) == 2
    assert device_main([]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_a_bundle_with_a_compiled_plugin_declares_it(tmp_path):
    scratch = tmp_path / "made"
    scratch.mkdir()
    descriptor = any_arch("jetson-orin-nano")
    plugin = library(tmp_path, EXPORTS)
    made = compiled(scratch, descriptor=descriptor)
    made = _with_plugin(str(plugin), made, descriptor, bundles.SIZE)
    card = bundles.made().card
    manifest = Manifest(
        model={},
        classes=len(card.classes),
        preprocessing=card.preprocessing,
        input=ModelInput(made.input_name, *card.preprocessing.size),
        target=descriptor,
        arch=made.arch,
        main=made.main,
        plugins=made.plugins,
        runtime=made.runtime,
        sections=made.sections,
    )
    path = tmp_path / "b"
    write_bundle(path, manifest, {file.name: file for file in made.files}, card.classes)
    opened = open_bundle(path)
    assert (opened.manifest.plugins, opened.manifest.arch) == ((PLUGIN,), host_arch())
    check_engine_build(opened)
