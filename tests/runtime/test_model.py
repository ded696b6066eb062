"""``edgekit.load`` and ``predict``, as a program on a device uses them."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import edgekit
from edgekit.bundle.store import update_manifest_section, write_bundle, zip_bundle
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.runtime.model import Model, Prediction, Predictions
from edgekit.targets import descriptor
from tests import bundles
from tests.photos import write_photos

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module", params=["cpu", "onnxruntime-cpu"])
def model(request: pytest.FixtureRequest) -> Model:
    return edgekit.load(bundles.bundle(request.param), cache=False)


def same(one: Prediction, other: Prediction) -> None:
    assert (one.label, one.code) == (other.label, other.code)
    assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_predictions_are_those_of_the_model(model: Model) -> None:
    pixels = bundles.images(9)
    expected = bundles.made().expect(pixels)
    assert expected.code is not None
    predictions = model.predict(pixels, fitted=True, top=3)
    assert isinstance(predictions, Predictions)
    assert len(predictions) == 9
    best = expected.logits.argmax(1).tolist()
    assert predictions.labels == [bundles.CLASSES[index] for index in best]
    assert predictions.codes == expected.code.tolist()
    probabilities = expected.logits.softmax(1)
    for row, one in enumerate(predictions):
        assert one.index == best[row]
        assert one.probability == pytest.approx(float(probabilities[row].max()), abs=1e-5)
        assert len(one.top) == 3
        assert one.top[0] == (one.label, one.probability)
        assert [p for _, p in one.top] == sorted((p for _, p in one.top), reverse=True)
        assert one.milliseconds is not None
        assert one.milliseconds > 0
        assert one.error is None
    assert predictions[2:4].labels == predictions.labels[2:4]


def test_every_way_to_hand_in_an_image_gives_the_same(model: Model, photos: Path) -> None:
    path = photos / "1.bmp"
    with Image.open(path) as image:
        array = np.asarray(image)
        ways = [
            model.predict(path),
            model.predict(str(path)),
            model.predict([path]),
            model.predict(array),
            model.predict(array[None]),
            model.predict([array]),
            model.predict(image),
            model.predict([image]),
            list(model.predict_stream(iter([path]))),
        ]
    fitted = model.manifest.preprocessing.fit(array)
    ways.append(model.predict(fitted, fitted=True))
    for way in ways:
        assert len(way) == 1
        same(way[0], ways[0][0])
    assert ways[0][0].source == str(path)
    assert ways[3][0].source == "image 0"
    assert ways[6][0].source == str(path)


def test_a_pillow_image_lies_as_its_file_would(model: Model, tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:20, :, 0], pixels[:, :30, 3] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        same(model.predict(image)[0], model.predict(tmp_path / "turned.png")[0])


def test_a_bad_image_is_named_and_not_fatal(model: Model, photos: Path) -> None:
    items: Any = [photos / "0.png", photos / "bad.jpg", photos / "absent.png", photos / "cut.png",
             np.zeros((4, 4), np.uint8), 5, np.zeros((9, 9, 3), np.uint8)]  # fmt: skip
    predictions = model.predict(items)
    assert [one.error is not None for one in predictions] == [False, *[True] * 5, False]
    assert "bad.jpg is not an image" in str(predictions[1].error)
    assert "absent.png: No such file" in str(predictions[2].error)
    assert "cut.png is corrupt or truncated" in str(predictions[3].error)
    assert "image 4 is uint8 [4, 4]" in str(predictions[4].error)
    assert "image 5 is a int" in str(predictions[5].error)
    assert predictions.labels[1:6] == [None] * 5
    assert [one.source for one in predictions.errors][:2] == [
        str(photos / "bad.jpg"),
        str(photos / "absent.png"),
    ]


def test_wrong_arrays_are_refused_at_once(model: Model) -> None:
    for array in (
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
    ):
        with pytest.raises(UsageError, match=r"predict takes uint8 \[H, W, 3\]"):
            model.predict(array)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="run takes uint8"):
            model.run(array)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="run takes uint8"):
        model.run(np.zeros((1, 8, 8, 3), np.uint8))
    unfitted = model.predict(np.zeros((8, 8, 3), np.uint8), fitted=True)
    assert "fitted images are [24, 32]" in str(unfitted[0].error)
    assert len(model.predict([])) == 0


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_stream_keeps_its_order(model: Model, batch: int) -> None:
    pixels = bundles.images(20)
    whole = model.predict(pixels, fitted=True)

    def frames() -> Iterator[NDArray[np.uint8] | str]:
        for index, frame in enumerate(pixels):
            yield "absent.png" if index == 7 else frame

    streamed = list(model.predict_stream(frames(), batch=batch, fitted=True))
    assert len(streamed) == 20
    for index, (one, other) in enumerate(zip(streamed, whole, strict=True)):
        if index == 7:
            assert one.error is not None
        else:
            assert one.source == f"image {index}"
            same(one, other)


def test_a_stream_reads_no_further_than_it_must(model: Model) -> None:
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        frame = bundles.images(1)[0]
        while True:
            taken += 1
            yield frame

    stream = model.predict_stream(endless(), batch=2, in_flight=3, fitted=True)
    assert taken == 0
    for _ in range(5):
        next(stream)
    assert taken <= 2 * (3 + 3)
    before = threading.active_count()
    stream.close()  # type: ignore[attr-defined] # it is a generator
    assert threading.active_count() <= before
    with pytest.raises(UsageError, match="at least 1"):
        model.predict_stream([], batch=0)


@pytest.mark.every_core
def test_many_threads_use_one_model(model: Model) -> None:
    pixels = bundles.images(24)
    expected = model.run(pixels)
    wrong: list[int] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(25):
            rows = random.integers(0, len(pixels), random.integers(1, 6))
            raw = model.run(pixels[rows])
            assert raw.code is not None
            assert expected.code is not None
            if not np.allclose(raw.logits, expected.logits[rows], atol=1e-5) or not np.array_equal(
                raw.code, expected.code[rows]
            ):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_and_hint_replace_the_targets() -> None:
    path = bundles.bundle()
    model = edgekit.load(path, threads=1, hint="throughput", cache=False)
    assert model.describe()["threads"] == 1
    assert model.describe()["hint"] == "throughput"
    with pytest.raises(UsageError, match="threads must be at most 4,096, not 4,611"):
        edgekit.load(bundles.bundle(), threads=2**62)
    with pytest.raises(UsageError, match="batch must be at most 65,536"):
        edgekit.load(bundles.bundle(), batch=2**62)
    with pytest.raises(UsageError, match="threads must not be negative"):
        edgekit.load(path, threads=-1)
    with pytest.raises(UsageError, match="unknown hint 'fast'"):
        edgekit.load(path, hint="fast")  # type: ignore[arg-type]


def test_a_zip_predicts_as_its_folder(tmp_path: Path) -> None:
    zip_bundle(bundles.bundle(), tmp_path / "b.zip")
    pixels = bundles.images(3)
    zipped = edgekit.load(tmp_path / "b.zip").predict(pixels)
    for one, other in zip(zipped, edgekit.load(bundles.bundle()).predict(pixels), strict=True):
        same(one, other)


def test_a_bundle_can_be_copied_and_updated(tmp_path: Path) -> None:
    shutil.copytree(bundles.bundle(), tmp_path / "elsewhere")
    update_manifest_section(tmp_path / "elsewhere", "bench", {"ms": 1})
    model = edgekit.load(tmp_path / "elsewhere", cache=False)
    assert model.manifest.sections == {"bench": {"ms": 1}}


def test_int8_for_another_instruction_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.bundle.store import open_bundle

    bundle = open_bundle(bundles.bundle())
    manifest = bundle.manifest
    vnni = replace(manifest.target, precision="int8", isa=("vnni",))
    files: dict[str, Path | bytes] = {
        name: bundle.folder / name for name in manifest.files if name != "labels.txt"
    }
    write_bundle(tmp_path / "b", replace(manifest, target=vnni), files, bundle.labels)
    monkeypatch.setattr(descriptor, "cpu_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(
        ToolchainMissing, match="its INT8 needs a CPU with vnni, which this one lacks"
    ):
        edgekit.load(tmp_path / "b")
    monkeypatch.setattr(descriptor, "cpu_flags", lambda: frozenset({"avx_vnni"}))
    edgekit.load(tmp_path / "b", cache=False)


def test_labels_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    from edgekit.bundle.store import open_bundle

    bundle = open_bundle(bundles.bundle())
    files: dict[str, Path | bytes] = {
        name: bundle.folder / name for name in bundle.manifest.files if name != "labels.txt"
    }
    write_bundle(tmp_path / "b", bundle.manifest, files, ["only", "two"])
    with pytest.raises(EdgekitError, match=r"\[1, 7\] logits, there are 2 labels"):
        edgekit.load(tmp_path / "b", cache=False)


@pytest.mark.parametrize("target", ["cpu", "onnxruntime-cpu"])
def test_a_device_needs_nothing_that_builds(target: str, photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import edgekit\n"
        "assert 'numpy' not in sys.modules\n"
        "model = edgekit.load(sys.argv[1])\n"
        "results = list(model.predict_stream(sys.argv[2:]))\n"
        "assert [r.error is None for r in results] == [True, False], results\n"
        "heavy = {'torch', 'nncf', 'onnx', 'scipy', 'cv2', 'torchvision', 'timm', 'safetensors',\n"
        "         'click', 'rich', sys.argv[1].endswith('runtime-cpu') and 'openvino'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    copy = tmp_path / target
    shutil.copytree(bundles.bundle(target), copy)
    subprocess.run(
        [sys.executable, "-c", code, str(copy), str(photos / "0.png"), str(photos / "bad.jpg")],
        check=True,
        env={**os.environ, "EDGEKIT_CACHE": str(tmp_path / "cache")},
    )


def test_the_package_offers_load_and_nothing_unknown() -> None:
    assert {"load", "extension_path"} <= set(dir(edgekit))
    assert callable(edgekit.load)
    assert callable(edgekit.extension_path)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        edgekit.lode  # noqa: B018


WRITER = """
import itertools, sys
from pathlib import Path
from edgekit.bundle.store import open_bundle, write_bundle
source, target = open_bundle(Path(sys.argv[1])), Path(sys.argv[2])
files = {name: source.folder / name for name in source.manifest.files if name != "labels.txt"}
for number in itertools.count(int(sys.argv[3])):
    labels = [f"{number} {label}" for label in source.labels]
    write_bundle(target, source.manifest, files, labels)
    print(number, flush=True)
"""


def test_load_finds_a_whole_bundle_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    """A process that replaces a bundle over and over is killed 20 times."""
    target, random = tmp_path / "b", np.random.default_rng(3)
    pixels = bundles.images(2)
    expected = bundles.made().expect(pixels)
    number = 0
    for _ in range(20):
        names = (str(bundles.bundle(lookup="auto")), str(target), str(number))
        command = [sys.executable, "-c", WRITER, *names]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(random.uniform(0, 0.04))
        process.kill()
        done = int((process.stdout.read().split() or [str(done)])[-1])
        process.wait()
        model = edgekit.load(target, cache=False)
        number = int(model.labels[0].split()[0])
        assert number in (done, done + 1)  # the last finished one, or the one at work
        assert model.labels == tuple(f"{number} {label}" for label in bundles.CLASSES)
        np.testing.assert_allclose(model.run(pixels).logits, expected.logits, atol=1e-4)
        number += 1
