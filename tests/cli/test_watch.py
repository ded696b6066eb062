"""``edgekit watch`` on a real bundle: its reference, a change, and what is said of it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.bundle.store import open_bundle
from edgekit.cli.main import cli
from edgekit.core.console import Console
from edgekit.core.documents import plain
from edgekit.core.errors import GateFailed, UsageError
from edgekit.data.datasets import open_dataset
from edgekit.field.given import read_predictions
from edgekit.field.monitor import Monitor, reference_of
from edgekit.field.sources import open_source
from edgekit.runtime.document import PredictedImage
from edgekit.runtime.model import load
from edgekit.steps.field_options import FieldOptions
from edgekit.steps.field_reference import store_reference
from tests import bundles, commands
from tests.field.exposition import read_exposition

watch = cli.commands["watch"]
QUIET = Console(verbosity=-1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("edgekit.field.state.secrets.randbits", lambda bits: 1)  # breaks ties


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a reference; a few corruptions and images, to be quick."""
    folder = tmp_path_factory.mktemp("watched")
    path = folder / "cpu"
    shutil.copytree(bundles.bundle(), path)
    images = bundles.images(240, seed=5)
    np.savez(folder / "lab.npz", images=images, labels=np.arange(240) % len(bundles.CLASSES))
    lab = open_dataset(str(folder / "lab.npz"))
    options = FieldOptions(corrupted=60, severities=(5,))
    store_reference(path, lab, QUIET, options, labeled=True)
    return path


def write(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04}.png")
    return folder


def dark(images: np.ndarray) -> np.ndarray:
    """As after dusk."""
    return (images * 0.15).astype(np.uint8)


class Typed(io.StringIO):
    """Standard input whose lines come from anywhere, each when it is asked for."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__()
        self._lines = iter(lines)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override] # as StringIO's
        line = next(self._lines, None)
        return "" if line is None else f"{line}\n"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict[str, object], str]:
    """The document and the exit's reason, "" for none."""
    reason = ""
    try:
        watch.main([*map(str, words), "--json"], standalone_mode=False)
    except GateFailed as error:
        reason = str(error)
    return json.loads(capsys.readouterr().out), reason


def test_the_reference_is_the_bundles_own(watched: Path) -> None:
    reference = reference_of(watched)
    assert reference.kind == "code"
    assert (reference.normal.images, reference.clean.images) == (180, 60)
    assert len(reference.cells) == 15
    model = load(watched)
    rows = bundles.images(240, seed=5)
    counts = np.bincount([prediction.code for prediction in model.predict(rows)], minlength=16)  # type: ignore[arg-type]
    both = reference.normal.dense(reference.symbols) + reference.clean.dense(reference.symbols)
    assert (both.reshape(16, -1).sum(axis=1) == counts).all()
    manifest = open_bundle(watched).manifest
    assert "field.json" in manifest.files


def test_nothing_to_report(
    watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "day", bundles.images(60, seed=6))
    document, reason = run(capsys, watched, folder, "--once")
    assert not reason
    assert document["images"] == 60
    assert document["changed"] is False
    assert document["outlook"] is None


def test_dusk_falls(watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day, night = bundles.images(60, seed=6), dark(bundles.images(120, seed=7))
    state, metrics = tmp_path / "state.json", tmp_path / "edgekit.prom"
    _, reason = run(capsys, watched, write(tmp_path / "1", day), "--once", "--state", state)
    assert not reason
    names = tmp_path / "list.txt"
    folder = write(tmp_path / "2", night)
    (folder / "broken.png").write_bytes(b"no image")
    names.write_text("\n".join(f"2/{file.name}" for file in sorted(folder.iterdir())))
    document, reason = run(capsys, watched, names, "--once", "--state", state, "--metrics", metrics)
    assert document["images"] == 180
    assert document["skipped"] == 1
    assert document["changed"] is True
    assert 40 <= int(str(document["since_image"])) <= 110
    assert f"since image {document['since_image']}" in reason
    samples = read_exposition(metrics.read_text())
    own = (("monitor", "state"),)
    assert samples["edgekit_changed", own] == 1
    assert samples["edgekit_images_total", own] == 180
    document, reason = run(capsys, watched, "--accept", "--state", state)
    assert not reason
    assert document["changed"] is False
    assert len(document["alarms"]) == 1  # type: ignore[arg-type]


def test_it_is_scraped_while_it_watches(
    watched: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write(tmp_path / "day", bundles.images(20, seed=6))
    scraped = []

    def names() -> Iterator[str]:
        yield from map(str, sorted(folder.iterdir()))
        address = re.search("metrics: (.*)", capsys.readouterr().err)
        assert address is not None
        scraped.append(urllib.request.urlopen(address[1], timeout=10).read().decode())

    monkeypatch.setattr(sys, "stdin", Typed(names()))
    document, _ = run(capsys, watched, "-", "--once", "--metrics", 0)
    assert document["images"] == 20
    (text,) = scraped
    assert 0 <= read_exposition(text)["edgekit_images_total", (("monitor", "cpu"),)] <= 20


def test_a_program_watches_what_it_predicts(watched: Path) -> None:
    model = load(watched)
    monitor = Monitor(model)
    for start in range(0, 240, 8):
        pixels = dark(bundles.images(240, seed=8))[start : start + 8]
        if monitor.update(model.predict(pixels)):
            break
    assert start < 200
    assert monitor.changed


def test_predictions_come_on_standard_input(
    watched: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `predict --json` says of images tells a monitor what the images would."""
    folder = write(tmp_path / "night", dark(bundles.images(80, seed=7)))
    predicted = json.loads(commands.run(capsys, "predict", watched, folder, "--json").out)
    own, reason = run(capsys, watched, folder, "--once")
    lines = [json.dumps(one) for one in predicted["predictions"]]
    monkeypatch.setattr(sys, "stdin", Typed([*lines, "", '{"error": "the frame is torn"}']))
    monkeypatch.setattr("edgekit.runtime.model.load", None)  # needs no runtime
    given, same = run(capsys, watched, "-", "--once")
    assert (given["evidence"], same) == (own["evidence"], reason)
    assert (given["images"], given["skipped"]) == (80, 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"index": 3', "prediction 2 of standard input is damaged: it is not JSON"),
        ("frame.png", "prediction 2 of standard input is damaged: it is not JSON"),
        ("[1]", "prediction 2 of standard input must be an object"),
        ('{"code": 3}', "prediction 2 of standard input: it has neither 'index'"),
        ('{"index": 3}', "prediction 2 of standard input: its prediction has no codeword"),
        ('{"index": 3, "code": 16}', "a code is 16, the reference has 0 to 15"),
        ('{"index": 4611686018427387904, "code": 1}', "class 4611686018427387904 does not exist"),
        ('{"index": -1, "code": 1}', "class -1 does not exist, the reference has 0 to 6"),
        ('{"index": "cat", "code": 1}', "'index' must be a whole number, not 'cat'"),
        ('{"index": 1, "code": 1, "probability": 91}', "'probability' must be 0 to 1"),
    ],
)
def test_lines_that_are_no_predictions(
    line: str, said: str, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = '{"index": 3, "code": 1, "margin": null}'
    monkeypatch.setattr(sys, "stdin", Typed([good, line]))
    with pytest.raises(UsageError) as error:
        watch.main([str(watched), "-", "--once"], standalone_mode=False)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_code_at_every_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the class is what is watched, and the codes do not have to be left out."""
    made = bundles.made(quantize="spatial")
    path = tmp_path / "spatial"
    bundles.pack(made.onnx, made.card, bundles.float_target("onnxruntime-cpu"), path)
    pixels = bundles.images(120, seed=5)
    np.savez(tmp_path / "lab.npz", images=pixels, labels=np.arange(120) % len(bundles.CLASSES))
    options = FieldOptions(corrupted=20, severities=(5,))
    store_reference(path, open_dataset(str(tmp_path / "lab.npz")), QUIET, options, labeled=True)
    predicted = load(path).predict(bundles.images(30, seed=6))
    assert all(isinstance(one.code, tuple) for one in predicted)
    lines = [json.dumps(plain(PredictedImage.of(one))) for one in predicted]
    watched, given = Monitor(path), Monitor(path)
    watched.update(predicted)
    given.update(read_predictions(lines, "here"))
    assert given.status().evidence == watched.status().evidence
    assert given.status().images == 30
    (one,) = read_predictions(['{"index": 0, "code": [1, 2], "margin": [0.5, null]}'], "here")
    assert (one.code, one.margin) == ((1, 2), (0.5, math.inf))


@pytest.mark.parametrize("content", ["{" * 3_000_000, "\0" * 3_000_000, "a" * 3_000_000])
def test_a_line_without_an_end(
    content: str, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class Counting(io.StringIO):
        def readline(self, size: int = -1, /) -> str:  # type: ignore[override] # as StringIO's
            taken.append(size)
            return super().readline(size)

    monkeypatch.setattr(sys, "stdin", Counting(content))
    with pytest.raises(UsageError, match="line 1 of standard input has more than 1,048,576 char"):
        watch.main([str(watched), "-", "--once"], standalone_mode=False)
    assert 0 < min(taken) <= max(taken) <= (1 << 20) + 1


def test_names_of_standard_input_are_of_any_encoding(
    watched: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copyfile(next(write(tmp_path / "a", bundles.images(1)).iterdir()), name)
    stream = io.TextIOWrapper(io.BytesIO(name + b"\n\0.png\n" + b"a" * 9000), "utf-8")
    monkeypatch.setattr(sys, "stdin", stream)
    document, _ = run(capsys, watched, "-", "--once")
    assert (document["images"], document["skipped"]) == (1, 2)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        watch.main([str(watched), "-", "--once"], standalone_mode=False)


def test_what_is_refused(watched: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        with pytest.raises(UsageError) as error:
            watch.main(list(map(str, words)), standalone_mode=False)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "--watch" in refused(bundles.bundle(), tmp_path, "--once")
    (tmp_path / "empty").mkdir()
    assert "has no images" in refused(watched, tmp_path / "empty", "--once")
    assert "nothing to watch" in refused(watched, tmp_path / "absent", "--once")
    assert "name what to watch" in refused(watched)
    assert "--state" in refused(watched, "--accept")
    assert "HOST:PORT" in refused(watched, tmp_path, "--metrics", "prometheus")
    (tmp_path / "state.json").write_text("{")
    assert "state.json" in refused(watched, tmp_path, "--state", tmp_path / "state.json")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    assert "OpenCV cannot open" in refused(watched, tmp_path / "film.mp4", "--once")


def test_too_few_images_make_no_reference(watched: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", images=bundles.images(49), labels=np.zeros(49, np.int64))
    few = open_dataset(str(tmp_path / "few.npz"))
    with pytest.raises(UsageError, match="49 validation images"):
        store_reference(watched, few, QUIET, FieldOptions(), labeled=False)


def test_a_growing_folder_is_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "camera", bundles.images(2))
    source = open_source(str(folder), follow=True)
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    found = [next(source), next(source)]
    new = folder / "z.png"
    shutil.copy(folder / "0000.png", new)
    os.utime(new, (1, 1))
    found.append(next(source))
    assert [Path(str(file)).name for file in found] == ["0000.png", "0001.png", "z.png"]


def test_a_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for red in range(0, 250, 10):
        writer.write(np.full((48, 64, 3), (0, 0, red), np.uint8))
    writer.release()
    frames = list(open_source(str(path), follow=False, every=5))
    assert len(frames) == 5
    reds = [np.asarray(frame)[:, :, 0].mean() for frame in frames]
    assert reds == pytest.approx([0, 50, 100, 150, 200], abs=6)


def test_the_report_has_what_a_monitor_saw(watched: Path, tmp_path: Path) -> None:
    state, page = tmp_path / "pole.json", tmp_path / "pole.html"
    folder = write(tmp_path / "camera", dark(bundles.images(40, seed=8)))
    words = ["watch", str(watched), str(folder), "--state", str(state), "--once", "--quiet"]
    with contextlib.suppress(GateFailed):  # an alarm, which is not what this is about
        cli.main(words, standalone_mode=False)
    report = ["report", str(watched)]
    cli.main([*report, "--watched", str(state), "-o", str(page)], standalone_mode=False)
    assert "The last 40 images that the monitor saw" in page.read_text()
    with pytest.raises(UsageError, match="in the file that -o names"):
        cli.main([*report, "--watched", str(state)], standalone_mode=False)
    with pytest.raises(UsageError, match="no monitor's state at"):
        cli.main([*report, "--watched", str(folder / "x"), "-o", str(page)], standalone_mode=False)
