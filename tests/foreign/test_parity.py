"""The verdict on classifiers that edgekit did not make."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.cli.main import main
from edgekit.parity.document import ParityDocument, Sides
from edgekit.report.markup import escaped
from edgekit.report.pair_page import pair_page
from tests import bundles, commands, terminals
from tests.foreign import classifiers
from tests.foreign.lies import CELLS, quantized
from tests.foreign.test_program import GOOD


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache: the reference answers once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def parity(
    capsys: pytest.CaptureFixture[str], candidate: Path | str, *words: str
) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and standard error of a comparison with the float network."""
    arguments = ["parity", str(candidate), "--reference", str(classifiers.float_onnx()), "--json"]
    arguments += ["--data", str(classifiers.data()), *CELLS]
    arguments += ["--preprocessing", str(classifiers.preprocessing()), "--tolerance", "3", *words]
    code, out, err = commands.run(capsys, *arguments)
    return code, json.loads(out), err


def test_int8_of_another_tool_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, summary = tmp_path / "made" / "judged", tmp_path / "summary.md"
    words = ["--out", str(out), "--summary", str(summary), "--no-images"]
    code, document, _ = parity(capsys, quantized(), *words)
    kept = ParityDocument.from_dict(json.loads((out / "parity.json").read_text()), "parity.json")
    assert kept.to_dict() == {name: document[name] for name in kept.to_dict()}
    page = (out / "report.html").read_text()
    # The keys of a file are sorted, the table is in the order of the sweep.
    assert sorted(page.split("<tr>")) == sorted(pair_page(kept).split("<tr>"))
    assert str(out / "report.html") in summary.read_text()
    for text in ("ONNX Runtime", "gaussian noise", "max_drop", escaped(kept.warnings[0])):
        assert page.count(text) >= 1, text
    assert "http" not in page  # nothing from elsewhere
    hostile = Sides("<script>alert(1)</script>", "\ud800")
    assert "<script" not in pair_page(dataclasses.replace(kept, sides=hostile))
    assert (code, document["verdict"]) == (0, "pass")
    assert document["codes"] is None
    assert document["reference_check"]["state"] == "better"
    assert document["top1_agreement"]["clean"] > 0.95
    for side in document["sides"].values():
        assert "ONNX Runtime" in side
        assert "CPUExecutionProvider" in side
        assert "28 x 28 px" in side


def test_it_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["parity", str(quantized()), "--reference", str(classifiers.float_onnx()), *CELLS]
    words += ["--data", str(classifiers.data()), "--tolerance", "3"]
    words += ["--preprocessing", str(classifiers.preprocessing())]
    terminals.pretend(monkeypatch, 80)
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr()
    for stream in (said.out, said.err):
        text = terminals.uncolored(stream)
        assert max(map(len, text.splitlines())) <= 80, text
        assert "…" not in text
        folded = " ".join(text.split())
        assert "28 x 28 px" in folded
        assert "CPUExecutionProvider" in folded


def test_edgekits_own_files_are_files_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """They were taken for bundles where the reference was one of them as well."""
    data = tmp_path / "images.npz"
    images = bundles.images(40, seed=9)
    labels = np.arange(40) % len(bundles.CLASSES)
    np.savez(data, images=images, labels=labels, classes=np.array(bundles.CLASSES))
    original, bundle = bundles.made().onnx, bundles.bundle("onnxruntime-cpu")

    def judged(candidate: Path, *more: str) -> dict[str, Any]:
        words = ["--reference", str(original), "--data", str(data), *CELLS, "--json"]
        with pytest.raises(SystemExit) as caught:
            main(["parity", str(candidate), *words, "--tolerance", "50", *more])
        printed = capsys.readouterr()
        assert caught.value.code in (0, 3), printed.err
        document: dict[str, Any] = json.loads(printed.out)
        return document

    itself = judged(original, "--allow-weak-reference")
    assert itself["corruption_error"]["delta"] == 0
    assert itself["closeness"]["scores_rms_clean"] < 1e-5
    # What is compiled takes the bytes of pixels, and answers as the bundle around it does.
    out = tmp_path / "judged"
    file = judged(bundle / "model.onnx", "--allow-weak-reference", "--out", str(out))
    own = tmp_path / "own"
    shutil.copytree(bundle, own)
    whole = judged(own, "--allow-different-reference")
    assert file["corruption_error"] == whole["corruption_error"]
    assert file["top1_agreement"]["clean"] > 0.8
    assert "uint8" in file["sides"]["candidate"]
    assert (out / "parity.json").is_file()


def test_a_program_against_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    source = GOOD.replace("ROOT", repr(str(Path(__file__).parents[2])))
    code, document, _ = parity(capsys, classifiers.program(source, "good.py"))
    assert code == 0
    assert document["top1_agreement"]["clean"] > 0.99
    assert document["clean_error"]["candidate"] == document["clean_error"]["reference"]


def test_a_reference_that_knows_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    images, labels = classifiers.parts()["test"]
    names = np.array([str(number) for number in range(classifiers.CLASSES)])
    np.savez(tmp_path / "other.npz", images=images, labels=(labels + 1) % 10, classes=names)
    path = classifiers.float_onnx()
    code, document, _ = parity(capsys, path, "--data", str(tmp_path / "other.npz"))
    assert code == 2
    assert "its preprocessing or the labels are wrong" in document["error"]
    weak = ["--data", str(tmp_path / "other.npz"), "--allow-weak-reference", "--images", "40"]
    code, document, errors = parity(capsys, path, *weak)
    assert code == 3  # of 40 images nothing is certain
    assert document["reference_check"]["state"] == "no better"
    assert any("the labels are wrong" in text for text in document["warnings"])
    assert "the labels are wrong" in errors


def test_an_input_of_another_size_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small = tmp_path / "small.toml"
    small.write_text(classifiers.PREPROCESSING.replace("28, 28", "24, 24"))
    source = GOOD.replace("ROOT", repr(str(Path(__file__).parents[2]))).replace(
        "logits = ", "images = images.repeat(2, 1).repeat(2, 2)[:, 10:38, 10:38]\n    logits = "
    )
    program = classifiers.program(source, "small.py")
    words = ["--preprocessing", str(small)]
    words += ["--reference-preprocessing", str(classifiers.preprocessing())]
    code, document, errors = parity(capsys, program, *words)
    assert code == 3
    assert document["verdict"] == "fail"  # it sees the middle alone
    assert "resized" in errors


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a.onnx"], "a.onnx is no bundle: name what is right, with --reference"),
        (["a.onnx", "--reference", "b.onnx"], "name the images that judge, with --data"),
        (["a.onnx", "--reference", "b.onnx", "--min-code-agreement", "0.9"], "have no codes"),
        (["a.plan", "--reference", "b.onnx", "--device", "nano"], "--device runs bundles, and a"),
        (["build/cpu", "--out", "kept"], "--out is for files: a bundle keeps its own result"),
        (["build/cpu", "--background"], "--background is for files that edgekit did not make"),
    ],
)
def test_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["parity", *words])
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err
