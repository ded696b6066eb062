"""What a host prepares for a TensorRT device, and the script that builds there.

The script runs here for real, against a made-up root folder with the release files of a Jetson; see
`tests.tensorrt.devices`.
"""

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekit.bundle.engine import ENGINE, MODEL, PLUGIN, SCRIPT, EngineState, adopt_engine
from edgekit.bundle.store import open_bundle
from edgekit.compilers import device_build
from edgekit.compilers.base import compiler
from edgekit.compilers.tensorrt import lookup_form
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.graph.variants import lookup_node
from edgekit.runtime.finish_engine import main as device_main
from edgekit.runtime.runner import open_runner, run_settings
from edgekit.targets.descriptor import descriptor_names, load_descriptor
from edgekit.targets.tensorrt_releases import TensorRTFacts
from tests import bundles
from tests.tensorrt.devices import any_arch, bundle, compiled, refused

JETSONS = ("jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-thor", "jetson-xavier")


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
    assert "--sparsity=enable" in call.split()
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
