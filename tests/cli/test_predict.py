"""``edgekit predict`` and ``targets``, and the example programs."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from numpy.typing import NDArray

import edgekit
from edgekit.cli.main import cli
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.field.sources import open_source
from edgekit.runtime import predicted_csv
from edgekit.runtime.model import Prediction
from tests import bundles, terminals
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


def rows_of(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out, newline=""), strict=True))


def test_predict_prints_csv(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    odd = tmp_path / 'a, "b"\nand =c.png'
    shutil.copyfile(photos / "0.png", odd)
    words = (str(bundles.bundle()), str(odd), str(photos / "bad.jpg"), str(photos / "1.bmp"))
    out, err = run(capsys, predict, *words, "--csv", "--top", "9")
    rows = rows_of(out)
    assert [row["image"] for row in rows] == [*words[1:]]
    assert all(None not in row and None not in row.values() for row in rows)
    expected = edgekit.load(bundles.bundle(), cache=False).predict(photos / "0.png", top=9)[0]
    good, bad, _ = rows
    assert good["label"] == expected.label
    assert int(good["index"]) == expected.index
    assert float(good["probability"]) == pytest.approx(expected.probability, rel=1e-4)
    assert int(good["code"]) == expected.code
    assert float(good["margin"]) == pytest.approx(expected.margin, rel=1e-3)
    assert float(good["milliseconds"]) > 0
    assert good["label_2"] == expected.top[1][0]
    assert good["label_7"] == expected.top[6][0]
    assert good["label_9"] == good["error"] == ""
    assert (bad["label"], bad["probability_2"]) == ("", "")
    assert "is not an image" in bad["error"]
    assert "1 of 3 images could not be read" in err
    with pytest.raises(UsageError, match="choose one"):
        run(capsys, predict, *words, "--csv", "--json")


def test_csv_keeps_no_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    """A camera may run for months."""
    alive: list[int] = []
    answers: weakref.WeakSet[Prediction] = weakref.WeakSet()
    row = predicted_csv.csv_row

    def noted(answer: Prediction, top: int) -> list[str]:
        answers.add(answer)
        alive.append(len(answers))
        return row(answer, top)

    monkeypatch.setattr(predicted_csv, "csv_row", noted)
    words = (str(bundles.bundle()), *[str(photos / "0.png")] * 40, "--batch", "1", "--csv")
    out, _ = run(capsys, predict, *words)
    assert len(rows_of(out)) == len(alive) == 40
    assert max(alive) < 8


def test_csv_of_hostile_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file a name is as it is; a terminal obeys nothing that a name says."""
    name = "a\x1b[2Jb\r,c.png"
    Console().csv_row([name, 1])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out, newline=""))) == [[name, "1"]]
    terminals.pretend(monkeypatch, 80)
    Console().csv_row([name, 1])
    assert capsys.readouterr().out == '"a\\x1b[2Jb\\r,c.png",1\n'


def film(path: Path, frames: int = 12) -> Path:
    """Every frame is another image of the tests' model's size."""
    import cv2

    height, width = bundles.SIZE
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for frame in bundles.images(frames, seed=3):
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def test_predict_takes_videos(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    video = film(tmp_path / "film.avi")
    words = (str(bundles.bundle()), str(photos / "0.png"), str(video), "--every", "5")
    out, _ = run(capsys, predict, *words, "--json")
    found = json.loads(out)["predictions"]
    frames = [f"{video}#0", f"{video}#5", f"{video}#10"]
    assert [one["source"] for one in found] == [str(photos / "0.png"), *frames]
    model = edgekit.load(bundles.bundle(), cache=False)
    pixels = [np.asarray(frame) for frame in open_source(str(video), follow=False, every=5)]
    for one, expected in zip(found[1:], model.predict(pixels), strict=True):
        assert one["label"] == expected.label
        assert one["probability"] == pytest.approx(expected.probability, abs=1e-5)
    out, _ = run(capsys, predict, *words, "--frames", "2", "--csv")
    assert [row["image"] for row in rows_of(out)][1:] == frames[:2]
    out, _ = run(capsys, predict, str(bundles.bundle()), str(video))
    assert len(out.splitlines()) == 1 + 12


def test_predict_says_what_is_wrong_with_a_video(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = str(bundles.bundle())
    with pytest.raises(UsageError, match=r"absent\.mp4 does not exist"):
        run(capsys, predict, bundle, str(tmp_path / "absent.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(UsageError, match=r"cannot open .*bad\.mp4"):
        run(capsys, predict, bundle, str(tmp_path / "bad.mp4"))
    with pytest.raises(UsageError, match="camera:0 has no end: add --frames N, or --csv"):
        run(capsys, predict, bundle, "camera:0")
    monkeypatch.setitem(sys.modules, "cv2", None)
    for words in (("camera:0", "--csv"), (str(tmp_path / "bad.mp4"),)):
        with pytest.raises(ToolchainMissing, match="run pip install opencv-python-headless") as why:
            run(capsys, predict, bundle, *words)
        assert why.value.exit_code == 4


def test_a_camera_is_answered_frame_by_frame(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that never ends; every row is out before the frames after the next are taken."""
    import cv2

    taken: list[int] = []

    class Camera:
        def __init__(self, source: object) -> None:
            assert source == 0

        def isOpened(self) -> bool:  # noqa: N802 # OpenCV's name
            return True

        def read(self) -> tuple[bool, NDArray[np.uint8]]:
            taken.append(capsys.readouterr().out.count("camera:0#"))
            return True, bundles.images(1)[0]

        def release(self) -> None:
            taken.append(-1)

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    words = (str(bundles.bundle()), "camera:0", "--frames", "8", "--csv")
    out, _ = run(capsys, predict, *words)
    *printed, released = taken
    assert released == -1
    assert len(printed) == 8
    assert sum(printed) + out.count("camera:0#") == 8
    assert sum(printed) > 0, "rows are printed while the camera runs"
    out, _ = run(capsys, predict, str(bundles.bundle()), "camera:0", "--frames", "2")
    assert "camera:0#1" in out


def test_odd_frames(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gray, with alpha, of another size, empty, of 16 bits; the last, OpenCV itself fails."""
    import cv2

    color = bundles.images(1)[0]
    frames: list[Any] = [
        color[:, :, ::-1],
        np.dstack([color[:, :, ::-1], np.zeros(bundles.SIZE, np.uint8)]),
        np.full(bundles.SIZE, 90, np.uint8),
        np.full((*bundles.SIZE, 1), 90, np.uint8),
        np.zeros((7, 300, 3), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        color.astype(np.uint16),
        color,  # on its way when OpenCV fails
    ]

    class Camera:
        def __init__(self, source: object) -> None:
            self.frames = iter(frames)

        def isOpened(self) -> bool:  # noqa: N802 # OpenCV's name
            return True

        def read(self) -> tuple[bool, Any]:
            for frame in self.frames:
                return True, frame
            raise cv2.error("the cable is out")

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    words = (str(bundles.bundle()), "camera:0", "--frames", str(2**62), "--every", "1")
    with pytest.raises(EdgekitError, match="cannot go on with camera:0: the cable is out"):
        run(capsys, predict, *words, "--csv")
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    assert [row["image"] for row in rows[:7]] == [f"camera:0#{number}" for number in range(7)]
    assert rows[0]["probability"] == rows[1]["probability"]
    assert rows[2]["probability"] == rows[3]["probability"]
    assert [bool(row["error"]) for row in rows[:7]] == [False] * 5 + [True] * 2
    assert rows[5]["error"].startswith("camera:0#5 is uint8 [0, 0, 3]")
    assert "camera:0#6 is uint16" in captured.err


def test_a_video_that_ends_in_the_middle(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    video = film(tmp_path / "film.avi")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    out, _ = run(capsys, predict, str(bundles.bundle()), str(video), "--csv")
    assert 0 < len(rows_of(out)) < 12


def test_what_is_no_file_is_no_video(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "zero.mp4"):  # OpenCV would wait, or read for ever
        with pytest.raises(UsageError, match="is no regular file"):
            run(capsys, predict, str(bundles.bundle()), str(tmp_path / name))
    with pytest.raises(UsageError, match="there is no camera:99999"):
        run(capsys, predict, str(bundles.bundle()), "camera:" + "9" * 30, "--csv")


def test_predict_fails_when_no_image_can_be_read(
    capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    with pytest.raises(EdgekitError, match=r"^/\S*bad\.jpg is ") as caught:
        run(capsys, predict, str(bundles.bundle()), str(photos / "bad.jpg"), "--json")
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == ""  # the one JSON document is the error's


def test_why_no_image_can_be_read_is_said_once(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.jpg"
    gone.symlink_to("nowhere")
    why = f"cannot read image {gone}: No such file or directory"
    bundle, bad = str(bundles.bundle()), str(photos / "bad.jpg")
    for names, said in (([gone], why), ([gone, bad], f"none of the 2 images can be read: {why}")):
        with pytest.raises(EdgekitError) as caught:
            run(capsys, predict, bundle, *map(str, names), "--csv")
        assert str(caught.value) == said


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
