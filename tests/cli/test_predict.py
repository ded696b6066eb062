"""``edgekit predict`` and ``targets``, and the example programs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import edgekit
from edgekit.cli.main import cli
from edgekit.core.errors import EdgekitError, UsageError
from tests import bundles
from tests.photos import write_photos

predict, targets = cli.commands["predict"], cli.commands["targets"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def run(capsys: pytest.CaptureFixture[str], command: click.Command, *words: str) -> tuple[str, str]:
    command.main(list(words), standalone_mode=False)
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_predict_prints_a_table(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    out, err = run(capsys, predict, str(bundles.bundle()), str(photos), "--top", "2")
    lines = out.splitlines()
    assert lines[0].split() == ["image", "label", "probability", "code", "margin", "ms"]
    assert len(lines) == 1 + 5 * 2 + 2
    assert str(photos / "0.png") in lines[1]
    assert "bad image" in out
    assert "2 of 7 images could not be read" in err
    assert "bad.jpg is not an image" in err


def test_predict_prints_json(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    words = (str(bundles.bundle()), str(photos / "0.png"), str(photos / "bad.jpg"), "--json")
    out, _ = run(capsys, predict, *words, "--threads", "1", "--hint", "throughput")
    document = json.loads(out)
    good, bad = document["predictions"]
    assert good["label"] in bundles.CLASSES
    assert {"probability", "code", "margin", "milliseconds", "top", "index"} <= set(good)
    assert bad["error"]
    assert document["bad"] == 1
    assert document["runtime"]["threads"] == 1


def test_predict_fails_when_no_image_can_be_read(
    capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    with pytest.raises(EdgekitError, match=r"cannot read the image: .*bad\.jpg") as caught:
        run(capsys, predict, str(bundles.bundle()), str(photos / "bad.jpg"), "--json")
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == ""  # the one JSON document is the error's


def test_predict_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="absent does not exist"):
        run(capsys, predict, str(tmp_path / "absent"), str(photos))
    with pytest.raises(UsageError, match="has no images in it"):
        run(capsys, predict, str(bundles.bundle()), str(tmp_path))
    with pytest.raises(click.UsageError) as caught:
        run(capsys, predict, str(bundles.bundle()))
    assert "Missing argument 'IMAGES" in caught.value.format_message()


def test_targets_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, targets)
    assert "openvino-cpu-vnni" in out
    out, _ = run(capsys, targets, "cpu")
    assert "runs here" in out
    out, _ = run(capsys, targets, "--json")
    listed = {entry["name"]: entry for entry in json.loads(out)["targets"]}
    assert listed["cpu"]["runs_here"] is True
    out, _ = run(capsys, targets, "onnxruntime-cpu", "--json")
    assert [entry["backend"] for entry in json.loads(out)["targets"]] == ["onnxruntime"]
    with pytest.raises(UsageError, match="unknown target 'cpi'"):
        run(capsys, targets, "cpi")


def test_the_example_program_runs(photos: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "examples/predict.py",
            bundles.bundle(),
            photos / "0.png",
            photos / "bad.jpg",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "EDGEKIT_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    expected = edgekit.load(bundles.bundle(), cache=False).predict(photos / "0.png")[0]
    assert str(expected.label) in done.stdout
    assert "bad.jpg is not an image" in done.stdout


def test_the_cpp_example_gives_the_same_answer(tmp_path: Path) -> None:
    """Built by CMake against the `openvino` package, run with the bundle's plugin if it has one."""
    import openvino

    cmake, compiler = shutil.which("cmake"), shutil.which("c++") or shutil.which("g++")
    packages = Path(openvino.__file__).parent / "cmake"
    if cmake is None or compiler is None:
        pytest.skip("needs cmake and a C++ compiler")
    if not (packages / "OpenVINOConfig.cmake").is_file():
        pytest.skip("this openvino package has no CMake files")
    bundle = bundles.bundle(lookup="auto")
    configure: list[str | Path] = [
        cmake,
        "-S",
        ROOT / "examples/cpp",
        "-B",
        tmp_path,
        f"-DOpenVINO_DIR={packages}",
    ]
    build: list[str | Path] = [cmake, "--build", tmp_path]
    for command in (configure, build):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    pixels = bundles.images(1)
    (tmp_path / "image.rgb").write_bytes(pixels.tobytes())
    words = [tmp_path / "classify", bundle, tmp_path / "image.rgb"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    expected = edgekit.load(bundle, cache=False).predict(pixels, fitted=True)[0]
    assert found["label"] == expected.label
    assert int(found["code"]) == expected.code
    assert float(found["probability"]) == pytest.approx(expected.probability, abs=1e-4)
    assert float(found["margin"]) == pytest.approx(expected.margin, abs=1e-4)
    (tmp_path / "image.rgb").write_bytes(pixels.tobytes()[:-1])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bytes, the model takes" in done.stderr
