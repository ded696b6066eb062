"""``edgekit parity --across`` on files: the odd one, what executed, and fallbacks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.cli.across import _settled
from edgekit.cli.main import main
from edgekit.core.errors import UsageError
from edgekit.foreign.execution import Place, split_place
from edgekit.foreign.open import ForeignOptions, open_foreign
from edgekit.parity.across_document import AcrossDocument
from edgekit.report.across_page import across_page
from edgekit.report.across_table import lines
from tests import bundles, commands
from tests.foreign import classifiers

CELLS = ("--corruptions", "gaussian_noise,fog", "--severities", "1,3")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache: each file answers once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def across(
    capsys: pytest.CaptureFixture[str], *words: Path | str
) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and standard error."""
    arguments = ["parity", "--across", *map(str, words), "--json"]
    arguments += ["--data", str(classifiers.data()), *CELLS, "--tolerance", "4"]
    arguments += ["--preprocessing", str(classifiers.preprocessing())]
    code, out, err = commands.run(capsys, *arguments)
    return code, json.loads(out), err


def xml() -> Path:
    import openvino as ov

    path = classifiers.folder() / "across.xml"
    if not path.exists():
        ov.save_model(ov.convert_model(str(classifiers.float_onnx())), str(path))
    return path


def swapped() -> Path:
    net = classifiers.network()
    order = np.arange(classifiers.CLASSES)
    order[[2, 7]] = 7, 2
    other = dataclasses.replace(net, weights=net.weights[:, order], bias=net.bias[order])
    return classifiers.saved(classifiers.graph(other), "swapped.onnx")


def test_swapped_classes_stand_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = classifiers.float_onnx(), swapped(), xml()
    words = "--report", tmp_path / "page.html", "--out", tmp_path / "kept"
    code, found, errors = across(capsys, *files, *words)
    assert json.loads((tmp_path / "kept/parity-across.json").read_text()) == found
    assert (tmp_path / "kept/report.html").read_text() == (tmp_path / "page.html").read_text()
    document = AcrossDocument.from_dict(found, "stdout")
    assert code == 3
    assert document.verdict == "fail"
    assert [one.verdict for one in document.artifacts] == [None, "fail", "pass"]
    assert document.odd_one_out.letter == "B"
    assert document.reference_check is not None
    assert document.reference_check.state == "better"
    assert document.doubt() == ""
    assert f"B ({swapped()}) is the odd one out" in errors
    first, _, third = document.artifacts
    assert first.executed.devices == ("CPUExecutionProvider",)
    assert first.executed.nodes == {"CPUExecutionProvider": 4}
    assert third.executed.devices == ("CPU",)
    assert "OpenVINO" in third.executed.runtime
    assert "28 x 28 px" in first.images
    assert document.images < 600  # it does not take all images
    page = (tmp_path / "page.html").read_text()
    assert page == across_page(document)
    assert "is the odd one out" in page
    assert "OpenVINO" in page
    assert "http" not in page  # nothing from elsewhere
    hostile = dataclasses.replace(first, name="<script>alert(1)</script>")
    replaced = dataclasses.replace(document, artifacts=(hostile, *document.artifacts[1:]))
    assert "<script" not in across_page(replaced)
    doubtful = dataclasses.replace(document.reference_check, state="barely better")
    doubted = dataclasses.replace(document, reference_check=doubtful)
    assert "that may be chance" in across_page(doubted)
    assert any("that may be chance" in line for line in lines(doubted))


def test_a_reference_beside_the_artifacts(capsys: pytest.CaptureFixture[str]) -> None:
    words = (f"{classifiers.float_onnx()}@openvino:CPU", xml(), "--reference", str(xml()))
    code, found, _ = across(capsys, *words)
    assert code == 0
    assert found["reference"] == "B"
    assert found["odd_one_out"]["letter"] is None
    code, found, _ = across(capsys, xml(), "--reference", str(classifiers.float_onnx()))
    assert code == 0
    assert found["reference"] == "A"
    assert found["artifacts"][0]["name"] == str(classifiers.float_onnx())


@pytest.mark.parametrize(
    ("place", "code", "problem"),
    [
        ("openvino:AUTO", 1, "all of it runs on CPU: --allow-fallback accepts that"),
        ("openvino:AUTO:NPU,CPU", 1, "would silently run elsewhere"),
        ("openvino:HETERO:GPU,CPU", 1, "OpenVINO finds no GPU on this machine"),
        ("openvino:GPU", 4, "apt-get install intel-opencl-icd"),
        ("openvino:NPU", 4, "intel-level-zero-npu"),
        ("openvino:TPU", 2, "OpenVINO has no device 'TPU'"),
        ("onnxruntime:Azure", 1, "but all of it runs on CPUExecutionProvider"),
        ("onnxruntime:CUDA", 4, "pip install onnxruntime-gpu"),
        ("onnxruntime:Cuba", 2, "has no provider 'Cuba'"),
        ("onnxruntime:", 2, "name a device after 'onnxruntime:'"),
    ],
)
def test_a_place_that_is_not_there(
    capsys: pytest.CaptureFixture[str], place: str, code: int, problem: str
) -> None:
    file = classifiers.float_onnx()
    found, document, _ = across(capsys, file, f"{file}@{place}")
    assert found == code
    assert problem in document["error"]


@pytest.mark.parametrize(
    "place",
    ["openvino:AUTO", "openvino:AUTO:NPU,CPU", "openvino:HETERO:GPU,CPU", "onnxruntime:Azure"],
)
def test_a_fallback_that_is_allowed_is_told(capsys: pytest.CaptureFixture[str], place: str) -> None:
    file = classifiers.float_onnx()
    code, document, errors = across(capsys, file, f"{file}@{place}", "--allow-fallback")
    assert code == 0
    executed = document["artifacts"][1]["executed"]
    assert executed["fell_back"]
    assert executed["asked"] == place
    assert all("CPU" in device for device in executed["devices"])
    assert "warning" in errors
    assert "runs elsewhere" in errors


def test_an_auto_that_ends_on_the_cpu_is_that_cpu() -> None:
    told = ForeignOptions(str(classifiers.preprocessing()), allow_fallback=True)
    images, _ = classifiers.parts()["test"]
    there = open_foreign(f"{xml()}@openvino:AUTO", told).run(images[:40]).logits
    here = open_foreign(str(xml()), told).run(images[:40]).logits
    assert np.abs(there - here).max() <= 1e-4 * np.abs(here).max()


def test_edgekits_own_onnx_says_how_its_pixels_are_prepared() -> None:
    this = bundles.made()
    model = open_foreign(f"{this.onnx}@openvino:CPU", ForeignOptions())
    images = bundles.images(12)
    assert model.classes == bundles.CLASSES
    assert model.preprocessing == this.card.preprocessing
    expected = this.expect(images).logits.numpy()
    assert np.abs(model.run(images).logits - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a.onnx"], "--across compares two artifacts or more"),
        (["a.onnx", "a.onnx"], "a.onnx is named twice"),
        (["a.onnx", "b.onnx", "--background"], "say of which file: --of NAME"),
        (["a.onnx", "b.onnx", "--of", "c.onnx:background"], "NAME one of a.onnx, b.onnx"),
        (["a.onnx", "b.onnx", "--reference-background"], "say it with --of"),
        (["a.onnx", "--device", "pole"], "with --across write NAME:BUNDLE"),
        (["a.onnx", "b.onnx", "--min-code-agreement", "0.9"], "is for two bundles"),
        (["a.tflite@openvino:CPU", "b.onnx"], "no classifier at a.tflite"),
    ],
)
def test_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    code, document, _ = across(capsys, *words)
    assert code == 2
    assert problem in document["error"]


def test_several_without_across_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["parity", "a.onnx", "b.onnx"])
    assert caught.value.code == 2
    assert "several, and --of, are for --across" in capsys.readouterr().err


def test_what_is_said_of_one_file() -> None:
    files = ["command:./a:b.sh", "c.onnx@openvino:GPU"]
    settings = [
        "command:./a:b.sh:preprocessing=timm:x",
        "c.onnx@openvino:GPU:background",
        "c.onnx@openvino:GPU:output-name=scores:0",
    ]
    told = ForeignOptions("imagenet")
    first, second = _settled(files, told, settings)
    assert first == dataclasses.replace(told, preprocessing="timm:x")
    assert second == dataclasses.replace(told, background=True, output="scores:0")
    for wrong in ("c.onnx@openvino:GPU:color=red", "c.onnx@openvino:GPU:background=yes"):
        with pytest.raises(UsageError, match="--of"):
            _settled(files, told, [wrong])


def test_a_place_is_the_end_of_a_name() -> None:
    assert split_place("a@b/c.onnx") == ("a@b/c.onnx", None)
    assert split_place("me@host.onnx@openvino:AUTO:GPU,CPU") == (
        "me@host.onnx",
        Place("openvino", "AUTO:GPU,CPU"),
    )
    assert split_place("command:ssh me@pole:x") == ("command:ssh me@pole:x", None)
    with pytest.raises(UsageError, match=r"no runtime 'openvno' \(did you mean 'openvino'\?\)"):
        split_place("model.onnx@openvno:GPU")
