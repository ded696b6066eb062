"""`edgekit parity` from the command line, on a model that has learned something."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from edgekit.bundle.store import open_bundle, zip_bundle
from edgekit.cli.main import main
from edgekit.core.files import file_sha256
from edgekit.data.corruptions import corrupt
from edgekit.data.datasets import open_dataset
from edgekit.model.checkpoint import load_checkpoint
from edgekit.model.labels import read_labels
from edgekit.targets.descriptor import load_descriptor
from tests import bundles
from tests.e2e import trained

Capture = pytest.CaptureFixture[str]
SOME = ("--corruptions", "gaussian_noise,fog", "--severities", "3,5")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Path:
    path = trained.cache()
    monkeypatch.setenv("EDGEKIT_CACHE", str(path))
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    shutil.copytree(trained.bundle(), path)
    return path


def edgekit(capsys: Capture, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    code = stop.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def test_an_int8_bundle_passes_and_says_so_everywhere(bundle: Path, capsys: Capture) -> None:
    words = ("parity", bundle, *SOME, "--tolerance", 15)
    code, out, err = edgekit(capsys, *words)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "trained with seen=gaussian_noise,defocus_blur,fog,contrast"
    assert "corrupted in memory" in " ".join(out.split())
    assert "\x1b" not in out  # plain where it is no terminal
    assert any(line.startswith("gaussian noise") for line in lines)
    assert lines[-1].startswith("pass: ΔmCE")
    document = json.loads((bundle / "parity.json").read_text())
    assert document["verdict"] == "pass"
    assert document["clean_error"]["reference"] < 60  # it has learned something: chance is 90
    assert document["codes"]["usage"]["reference"]["used"] > 4
    summary = open_bundle(bundle).manifest.sections["parity"]  # checks every checksum, too
    assert summary["corruption_error"] == document["corruption_error"]
    assert "per_corruption" not in summary
    code, out, _ = edgekit(capsys, *words, "--json")
    again = json.loads(out)
    assert (code, again["inferences"]) == (0, 0)
    different = {"inferences", "inferences_cached", "seconds", "cpu_seconds", "reference_engine"}
    different |= {"measured", "looks", "gate"}
    assert (document["looks"], again["looks"]) == (1, 2)
    assert {k: v for k, v in again.items() if k not in different} == {
        k: v for k, v in document.items() if k not in different
    }


def damaged(path: Path, layer: int = 10) -> Path:
    """The bundle of `trained`, compiled after the weight scales of one layer were doubled."""
    good = open_bundle(trained.bundle()).manifest
    model = onnx.load(next((trained.cache() / "calibrate").glob("*/model.onnx")))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [
        constants[node.input[1]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0]) is not None
    ]
    scale = scales[layer]
    scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))
    onnx.save(model, path.with_suffix(".onnx"))
    card = load_checkpoint(trained.checkpoint()).card
    bundles.pack(path.with_suffix(".onnx"), card, load_descriptor("cpu"), path)
    manifest = dataclasses.replace(
        open_bundle(path).manifest, source=good.source, sections=good.sections, model=good.model
    )
    (path / "manifest.json").write_text(manifest.to_json())
    return path


def test_a_layer_with_doubled_scales_fails_and_the_worst_corruptions_are_named(
    tmp_path: Path, capsys: Capture
) -> None:
    path = damaged(tmp_path / "damaged")
    code, out, err = edgekit(capsys, "parity", path, *SOME, "--tolerance", 2)
    assert code == 3, err
    document = json.loads((path / "parity.json").read_text())
    assert document["verdict"] == "fail"
    assert document["images"] < document["images_available"] / 2
    deltas = {name: entry["delta"] for name, entry in document["per_corruption"].items()}
    lost = [name for name in sorted(deltas, key=lambda name: -deltas[name]) if deltas[name] > 0]
    assert document["worst"] == lost != []
    error = err.splitlines()[-1]
    assert error.startswith("error: parity fail: ΔmCE +")
    assert error.endswith("lost most on " + ", ".join(document["worst"]).replace("_", " "))
    code, out, _ = edgekit(capsys, "parity", path, *SOME, "--tolerance", 2, "--json")
    assert (code, json.loads(out)["verdict"]) == (3, "fail")  # one document, nothing behind it


def test_too_few_images_are_undecided_and_no_pass(bundle: Path, capsys: Capture) -> None:
    words = (*SOME, "--images", 12, "--tolerance", 0.5)
    code, _, err = edgekit(capsys, "parity", bundle, *words)
    assert code == 3
    assert "parity undecided" in err
    assert "more images like these would decide" in err


@pytest.mark.parametrize("kind", ["checkpoint", "float ONNX", "bundle", "zip"])
def test_every_kind_of_reference(
    kind: str, bundle: Path, tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    reference = trained.bundle()
    if kind == "checkpoint":
        reference = trained.checkpoint()
    elif kind == "float ONNX":
        reference = next((cache / "export").glob("*/model.onnx"))
    elif kind == "zip":
        reference = tmp_path / "reference.zip"
        zip_bundle(trained.bundle(), reference)
    words = (*SOME, "--images", 6, "--tolerance", 90, "--full", "--reference", reference)
    code, _, err = edgekit(capsys, "parity", bundle, *words)
    assert code == 0, err
    document = json.loads((bundle / "parity.json").read_text())
    itself = kind in ("bundle", "zip")
    assert (document["top1_agreement"]["corrupted"]["estimate"] == 1) == itself


def test_a_zip_is_compared_and_left_alone(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bundle.zip"
    zip_bundle(trained.bundle(), path)
    before = path.read_bytes()
    words = (*SOME, "--images", 6, "--tolerance", 90, "--full")
    code, _, err = edgekit(capsys, "parity", path, *words)
    assert code == 0
    assert "is a .zip and stays unchanged" in err
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle.zip"]


def test_a_reference_that_is_not_the_source(
    bundle: Path, tmp_path: Path, cache: Path, capsys: Capture
) -> None:
    loaded = load_checkpoint(trained.checkpoint())
    loaded.model.head.classifier.bias.data[0] += 1
    from edgekit.model.checkpoint import save_checkpoint

    other = tmp_path / "other.safetensors"
    save_checkpoint(other, loaded.model, loaded.card)
    words: tuple[object, ...] = (*SOME, "--images", 6, "--tolerance", 90, "--full", "--reference")
    code, _, err = edgekit(capsys, "parity", bundle, *words, other)
    assert code == 2
    ours, theirs = file_sha256(trained.checkpoint())[:12], file_sha256(other)[:12]
    assert f"comes from checkpoint {theirs}, the candidate from {ours}" in err.splitlines()[-1]
    model = onnx.load(next((cache / "export").glob("*/model.onnx")))
    next(
        entry for entry in model.metadata_props if entry.key == "edgekit.source_sha256"
    ).value = file_sha256(other)
    onnx.save(model, tmp_path / "other.onnx")
    code, _, err = edgekit(capsys, "parity", bundle, *words, tmp_path / "other.onnx")
    assert code == 2
    assert f"comes from checkpoint {theirs}" in err.splitlines()[-1]
    words = (*words, tmp_path / "other.onnx", "--allow-different-reference")
    code, _, err = edgekit(capsys, "parity", bundle, *words)
    assert code == 0, err
    assert json.loads((bundle / "parity.json").read_text())["same_source"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "absent.pth"], "no reference at absent.pth"),
        (["--severities", "1,x"], "--severities must be numbers"),
        (["--corruptions", "fogg"], "unknown corruption 'fogg': did you mean 'fog'?"),
        (["--data", "absent"], "no data at 'absent'"),
        (["--min-code-agreement", "1"], "must lie between 0 and 1"),
        (["--normalize-by", "alexnet", "--severities", "1"], "means over severities 1-5"),
        (["--tolerance", "100"], "decides nothing"),
    ],
)
def test_mistakes_are_one_line(
    bundle: Path, words: list[str], message: str, capsys: Capture
) -> None:
    code, out, err = edgekit(capsys, "parity", bundle, "-q", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_the_original_is_not_in_the_cache(
    bundle: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "empty"))
    code, _, err = edgekit(capsys, "parity", bundle)
    assert code == 2
    assert "is not in the cache" in err
    assert "--reference CHECKPOINT" in err


def test_other_data_are_used_whole(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    dataset = open_dataset(trained.DATA)
    rows = dataset.given_splits["test"][:12].tolist()
    lines = ["path,label"]
    for index in rows:
        Image.fromarray(dataset.image(index)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{dataset.classes[dataset.label(index)]}")
    listed = tmp_path / "images.csv"
    listed.write_text("\n".join(lines) + "\n")
    words = (*SOME, "--tolerance", 90, "--full", "--data", listed)
    code, _, err = edgekit(capsys, "parity", bundle, *words)
    assert code == 0, err
    assert json.loads((bundle / "parity.json").read_text())["images"] == 12


def test_a_published_folder(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    dataset = open_dataset(trained.DATA)
    labels = read_labels(bundle / "labels.txt")
    assert tuple(labels) == dataset.classes
    rows = [
        index
        for index in dataset.given_splits["test"][:60].tolist()
        if "/" not in dataset.classes[dataset.label(index)]
    ][:10]
    for index in rows:
        clean = trained.PREPROCESSING.fit(dataset.image(index))
        cells = {"clean": dataset.image(index)}
        for name in ("gaussian_noise", "fog"):
            for level in (3, 5):
                cells[f"{name}/{level}"] = corrupt(clean, name, level, image_id=str(index))
        for cell, pixels in cells.items():
            path = tmp_path / "c" / cell / dataset.classes[dataset.label(index)] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    words = ("--tolerance", 90, "--full", "--data", f"imagenet-c:{tmp_path / 'c'}")
    code, _, err = edgekit(capsys, "parity", bundle, *SOME, *words)
    assert code == 0, err
    document = json.loads((bundle / "parity.json").read_text())
    assert (document["corrupted"], document["images"]) == ("published", 10)
    code, _, err = edgekit(capsys, "parity", bundle, *words)
    assert code == 2
    assert "has no gaussian_noise/1" in err


def test_data_with_other_classes(bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "pets" / name / "1.png")
    code, _, err = edgekit(capsys, "parity", bundle, "--data", tmp_path / "pets")
    assert code == 2
    assert "the model knows no class 'cat'" in err


def start(bundle: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "edgekit",
        "parity",
        str(bundle),
        "--tolerance",
        "90",
        "--full",
    ]
    return subprocess.Popen(
        [*command, *words],
        env={**os.environ, "EDGEKIT_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def members(group: int) -> list[int]:
    """Processes of a session that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def kept(cache: Path) -> int:
    """Images whose answers by one of the models are kept."""
    return sum(len(path.name) == 40 for path in cache.glob("parity/*/*"))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupt_and_resume(
    how: signal.Signals, code: int, bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    own = tmp_path / "cache"
    trained.cache_of_floats(own)
    process = start(bundle, own, "--images", "24")
    deadline = time.monotonic() + 60
    while kept(own) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    if how == signal.SIGINT:  # a terminal's Ctrl-C reaches the workers, too
        os.killpg(process.pid, how)
    else:
        process.kill()
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    if how == signal.SIGINT:
        assert err.splitlines()[-1].startswith("error: interrupted; finished work is kept")
        assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(process.pid) == []
    done = kept(own)
    assert 6 <= done < 48
    assert not (bundle / "parity.json").exists()
    process = start(bundle, own, "--images", "24", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["inferences_cached"] == 76 * done
    assert document["inferences"] == 76 * (48 - done)


def test_build_ends_with_a_verdict_and_keeps_its_own(
    tmp_path: Path, capsys: Capture, cache: Path
) -> None:
    out = tmp_path / "build"
    words: tuple[object, ...] = (
        "build",
        "--checkpoint",
        trained.checkpoint(),
        "--data",
        trained.DATA,
        "--recipe",
        "fast",
        "--no-bench",
        "--no-watch",
    )
    words = (*words, "--out", out, "--tolerance", 60, "--parity-images", 12)
    code, _, err = edgekit(capsys, *words)
    assert code == 0, err
    bundle = out / "cpu"
    own = json.loads((bundle / "parity.json").read_text())
    assert own["verdict"] == "pass"
    code, text, _ = edgekit(capsys, *words, "--json")
    assert json.loads(text)["bundles"][0]["up_to_date"] is True
    glance = ("parity", bundle, *SOME, "--images", 6, "--tolerance", 0.1)
    code, _, err = edgekit(capsys, *glance)
    assert code == 3  # by its own verdict, which is not the bundle's
    assert f"kept beside the bundle's evidence (pass, {own['images']} images)" in err
    assert "which stays: it may use 6 images, not 12" in err
    parity = json.loads((bundle / "parity.json").read_text())
    assert (parity["verdict"], parity["images"], parity["looks"]) == ("pass", own["images"], 2)
    assert [look["verdict"] for look in parity["beside"]] == ["undecided"]
    assert "Weaker or other comparisons" in (bundle / "report.html").read_text()
    strict = ("parity", bundle, "--images", 12, "--tolerance", 0.1)  # weaker in nothing
    assert edgekit(capsys, *strict)[0] == 3
    assert json.loads((bundle / "parity.json").read_text())["gates"]["tolerance"] == 0.1
    code, text, err = edgekit(capsys, *words, "--json")  # the build's own lies beside it
    document = json.loads(text)["bundles"][0]
    assert (code, document["up_to_date"], document["verdict"]) == (0, True, "pass"), err
    assert document["parity"]["looks"] == 3
    assert edgekit(capsys, *glance, "--replace")[0] == 3
    parity = json.loads((bundle / "parity.json").read_text())
    assert (parity["images_available"], parity["looks"]) == (6, 4)
    shutil.rmtree(bundle)
    code, text, err = edgekit(capsys, *words, "--json")  # judged anew, from the kept answers
    document = json.loads(text)["bundles"][0]
    assert (code, document["verdict"]) == (0, "pass"), err
    assert document["parity"]["inferences"] == 0
