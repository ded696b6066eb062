"""Targets for OpenVINO's other devices, as far as a machine without them shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.bench.layers.openvino import profile
from edgekit.bundle.store import open_bundle
from edgekit.cli.main import main
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.parity.predictors import open_bundle_predictor
from edgekit.runtime.model import load
from edgekit.runtime.openvino_devices import (
    check_device,
    device_settings,
    fell_back,
    without_missing,
)
from edgekit.runtime.runner import run_settings
from edgekit.targets.descriptor import load_descriptor
from edgekit.targets.intel_devices import why_no_device
from tests import bundles

NO_GPU = why_no_device("GPU") is not None
alone = pytest.mark.skipif(not NO_GPU, reason="this machine has an Intel GPU")


class Core:
    """An OpenVINO that finds these devices."""

    def __init__(self, *devices: str) -> None:
        self.available_devices = list(devices)


@pytest.mark.parametrize(
    ("asked", "executed", "fallen"),
    [
        ("CPU", ["CPU"], False),
        ("GPU", ["GPU.0"], False),
        ("GPU.1", ["GPU.0"], True),
        ("AUTO", ["CPU"], True),
        ("AUTO", ["GPU.0"], False),
        ("AUTO:CPU", ["CPU"], False),
        ("AUTO:GPU,CPU", ["CPU"], True),
        ("AUTO:NPU,GPU", ["GPU.0"], True),
        ("AUTO:-GPU", ["CPU"], True),
        ("MULTI:GPU(4),CPU(2)", ["GPU.0", "CPU"], False),
        ("HETERO:GPU,CPU", ["GPU.0", "CPU"], False),
        ("HETERO:GPU,CPU", ["CPU"], True),
    ],
)
def test_what_counts_as_a_fallback(asked: str, executed: Sequence[str], fallen: bool) -> None:
    assert fell_back(asked, executed) is fallen


def test_a_device_must_be_there() -> None:
    some = Core("CPU", "GPU.0")
    for asked in ("CPU", "GPU", "AUTO", "AUTO:GPU,CPU", "HETERO:GPU,CPU", "AUTO:-GPU"):
        check_device(some, asked, "it", allow_fallback=False)
    with pytest.raises(ToolchainMissing, match=r"it: OpenVINO finds no NPU .*linux-npu-driver"):
        check_device(some, "NPU", "it", allow_fallback=True)
    with pytest.raises(EdgekitError, match="AUTO:NPU,GPU would silently run elsewhere"):
        check_device(some, "AUTO:NPU,GPU", "it", allow_fallback=False)
    check_device(some, "AUTO:NPU,GPU", "it", allow_fallback=True)
    with pytest.raises(UsageError, match="no device 'TPU'"):
        check_device(some, "TPU", "it", allow_fallback=True)


def test_what_is_missing_is_not_asked_for() -> None:
    some = Core("CPU", "GPU.0")
    for asked in ("CPU", "AUTO", "AUTO:GPU,CPU", "HETERO:CPU"):
        assert without_missing(some, asked) == asked
    assert without_missing(some, "AUTO:NPU,CPU") == "CPU"
    assert without_missing(some, "AUTO:NPU,GPU,CPU") == "AUTO:GPU,CPU"
    with pytest.raises(ToolchainMissing, match="finds none of NPU"):
        without_missing(some, "AUTO:NPU")


def test_no_stand_in_answers() -> None:
    some = Core("CPU", "GPU.0")
    both = {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
    assert device_settings(some, "AUTO:GPU,CPU") == device_settings(some, "AUTO") == both
    assert device_settings(Core("CPU"), "AUTO") == {"ENABLE_RUNTIME_FALLBACK": False}
    assert device_settings(some, "GPU") == device_settings(some, "HETERO:GPU,CPU") == {}


@alone
def test_auto_ends_on_the_cpu_and_answers_as_it_does_with_standard_operators() -> None:
    path = bundles.bundle("openvino-auto", "auto")
    images = bundles.images(20)
    model, plain = load(path, cache=False), load(bundles.bundle("cpu", "inline"), cache=False)
    assert model.manifest.plugins == ()
    there, here = model.run(images), plain.run(images)
    np.testing.assert_allclose(there.logits, here.logits, atol=1e-5)
    assert there.code is not None
    np.testing.assert_array_equal(there.code, here.code)
    described = model.describe()
    assert described["device"] == "CPU"
    assert described["hint"] == "latency"
    execution = open_bundle_predictor(path).execution
    assert execution.fell_back
    assert execution.asked == "openvino:AUTO"
    assert not open_bundle_predictor(bundles.bundle()).execution.fell_back


@pytest.mark.parametrize("target", ["openvino-gpu", "openvino-npu", "openvino-auto"])
def test_our_operators_stay_out(tmp_path: Path, target: str) -> None:
    made = bundles.made()
    descriptor = replace(load_descriptor(target), precision="fp32")
    manifest = bundles.pack(made.onnx, made.card, descriptor, tmp_path / "b")
    assert manifest.plugins == ()
    assert "CodebookLookup" not in (tmp_path / "b/model.xml").read_text()
    with pytest.raises(UsageError, match="the compiled lookup runs on the CPU"):
        bundles.pack(made.onnx, made.card, descriptor, tmp_path / "c", lookup="plugin")


@alone
def test_a_build_for_auto_says_that_the_cpu_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["build", "--target", "openvino-auto", "--dry-run"])
    assert caught.value.code == 0
    assert "so everything here is measured on its CPU" in capsys.readouterr().err


@alone
def test_layers_are_timed_where_the_bundle_runs() -> None:
    bundle = open_bundle(bundles.bundle("openvino-auto", "auto"))
    settings = run_settings(bundle.manifest.target)
    measured = profile(bundle, settings, bundles.images(1), calls=2)
    assert any("Convolution" in layer.kind for layer in measured.layers)


@alone
@pytest.mark.parametrize("target", ["openvino-gpu", "openvino-npu"])
def test_without_the_device_a_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["build", "--target", target, "--dry-run"])
    assert caught.value.code == 4
    error = capsys.readouterr().err
    assert f"a bundle for {target} is built where it runs" in error
    assert "driver" in error
    made = bundles.made()
    descriptor = replace(load_descriptor(target), precision="fp32")
    bundles.pack(made.onnx, made.card, descriptor, tmp_path / "b")
    with pytest.raises(ToolchainMissing, match="OpenVINO finds no"):
        load(tmp_path / "b", cache=False)
