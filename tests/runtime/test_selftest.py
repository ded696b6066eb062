"""The self-test of a bundle: planted faults must fail it, other runtimes and hints must pass."""

import dataclasses
import functools
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgekit import load
from edgekit.bundle.selftest import (
    MOST_BYTES,
    SELFTEST,
    OldTest,
    SelfTest,
    StoredAnswers,
    read_self_test,
)
from edgekit.bundle.store import open_bundle, update_bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.npz import NpzError
from edgekit.data.synthetic import pictures
from edgekit.data.transforms import Preprocessing
from edgekit.graph.legalize import legalize
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.recipes import Recipe
from edgekit.runtime.answers import Answers
from edgekit.runtime.selftest import (
    SelfTestReport,
    ask,
    check_answers,
    prove,
    stored_part,
    where_it_runs,
)
from edgekit.steps.build_data import BuildData, open_data
from edgekit.steps.options import DataOptions
from edgekit.steps.selftest import make_self_test, with_own_answers
from edgekit.steps.selftest_scenes import Scenes, choose, make_scenes
from edgekit.targets.descriptor import load_descriptor
from edgekit.targets.dialects import find_dialect
from tests import bundles, shared
from tests.planted import classes_exchanged, codewords_exchanged, edited, weight_scales

TARGETS = ("cpu", "onnxruntime-cpu")
QUIET = Console(verbosity=-1)


@functools.cache
def data() -> BuildData:
    """Images that differ, as a user's do."""
    path = shared.own() / "selftest-data.npz"
    images = bundles.images(400, seed=11)
    labels = np.arange(len(images)) % len(bundles.CLASSES)
    np.savez(path, images=images, labels=labels, classes=np.array(bundles.CLASSES))
    return open_data(DataOptions(str(path), seed=0, skip_bad=False), bundles.CLASSES)


@functools.cache
def graph(target: str) -> onnx.ModelProto:
    """The INT8 graph that the target's runtime is given."""
    made = bundles.made()
    dialect = find_dialect(load_descriptor(target).dialect)
    pixels = bundles.images(48, seed=3)
    recipe = Recipe(images=48, bias_correction="none", rounding="nearest")
    calibrated, _ = calibrate(
        onnx.load(made.onnx), pixels, pixels, made.card.preprocessing, recipe, dialect, QUIET
    )
    return legalize(calibrated, dialect) if dialect.rewrites else calibrated


def pack(target: str, model: onnx.ModelProto, preprocessing: Preprocessing, name: str) -> Path:
    source = shared.own() / f"selftest-{name}-{target}.onnx"
    onnx.save(model, source)
    path = source.with_suffix("")
    card = dataclasses.replace(bundles.made().card, preprocessing=preprocessing)
    bundles.pack(source, card, load_descriptor(target), path)
    return path


@functools.cache
def scenes(*, photos: bool = True) -> Scenes:
    made = bundles.made()
    source = data() if photos else None
    return make_scenes(onnx.load(made.onnx), made.card.preprocessing, source, 0)


def self_test(target: str, *, photos: bool = True) -> SelfTest:
    """What is stored before the bundle itself is asked."""
    backend = load_descriptor(target).backend
    preprocessing = bundles.made().card.preprocessing
    return make_self_test(graph(target), preprocessing, scenes(photos=photos), backend)


@functools.cache
def good(target: str) -> tuple[Path, SelfTest]:
    """A bundle with its self-test."""
    preprocessing = bundles.made().card.preprocessing
    path = pack(target, graph(target), preprocessing, "good")
    test = with_own_answers(path, self_test(target))
    update_bundle(path, reports={SELFTEST: test.to_bytes()})
    return path, test


def judged(test: SelfTest, path: Path, **options: Any) -> SelfTestReport:
    model = load(path, **options)
    return check_answers(test, ask(test, model.run, model.size), where_it_runs(model.describe()))


def used_codes(test: SelfTest) -> tuple[int, int]:
    assert test.reference.code is not None
    count = np.bincount(test.reference.code.ravel())
    first, second = np.argsort(-count, kind="stable")[:2].tolist()
    return first, second


def faulty(target: str, fault: str) -> Path:
    """The bundle of `good`, damaged."""
    model, test = graph(target), good(target)[1]
    preprocessing = bundles.made().card.preprocessing
    if fault == "codebook rows":
        model = codewords_exchanged(model, *used_codes(test))
    elif fault == "classes":
        model = classes_exchanged(model, 2, 5, len(bundles.CLASSES))
    elif fault.startswith("scale"):
        place = {"first": 0, "middle": 1, "last": -1}[fault.split()[1]]
        name = weight_scales(model)[place]
        model = edited(model, [name], lambda scale: (scale * 1.2).astype(scale.dtype))
    elif fault == "mean":
        mean = tuple(value + 10 for value in preprocessing.mean)
        preprocessing = dataclasses.replace(preprocessing, mean=mean)
    else:
        assert fault == "BGR"
        preprocessing = dataclasses.replace(preprocessing, channel_order="BGR")
    path = pack(target, model, preprocessing, fault.replace(" ", "-"))
    update_bundle(path, reports={SELFTEST: test.to_bytes()})
    return path


FAULTS = ("codebook rows", "classes", "scale first", "scale middle", "scale last", "mean", "BGR")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_planted_fault_fails(target: str, fault: str) -> None:
    path = faulty(target, fault)
    with pytest.raises(EdgekitError, match="fails its self-test") as refused:
        prove(load(path), open_bundle(path))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_most_planted_faults_fail_in_another_runtime_too(fault: str) -> None:
    """Judged by the reference alone, as a device does on which the bundle never ran."""
    test = dataclasses.replace(good("cpu")[1], own=None)
    report = judged(test, faulty("cpu", fault))
    assert not report.passed, report.describe()


@pytest.mark.parametrize("target", TARGETS)
def test_a_good_bundle_passes_with_either_hint(target: str) -> None:
    path, test = good(target)
    for options in ({"hint": "latency"}, {"hint": "throughput"}, {"threads": 2, "batch": 3}):
        report = judged(test, path, **options)
        assert report.passed, report.describe()
        assert report.against == "its own answers where it was built"
    proof = prove(load(path), open_bundle(path))
    assert proof.stored is not None
    assert proof.stored.images == 40


@pytest.mark.parametrize("other", TARGETS)
def test_another_runtime_passes(other: str) -> None:
    """ONNX Runtime answers for OpenVINO; and OpenVINO, where it did not store its own answers."""
    test = dataclasses.replace(good("cpu")[1], own=None)
    path = pack(other, graph("cpu"), bundles.made().card.preprocessing, "from-cpu")
    for hint in ("latency", "throughput"):
        report = judged(test, path, hint=hint)
        assert report.against == "ONNX Runtime's answers"
        assert report.passed, report.describe()
        assert report.codes_clear > report.codes / 4
        assert report.top1_clear > report.images / 4


def test_it_meets_many_classes_and_codes() -> None:
    test = good("cpu")[1]
    answers = test.reference
    assert answers.code is not None
    assert len(test.images) == 40
    pool = data().splits.part("validation", data().dataset)
    everything = bundles.made().expect(np.stack([pool.image(index) for index in range(len(pool))]))
    assert everything.code is not None
    assert len(np.unique(answers.code)) >= len(everything.code.unique()) - 1
    assert len(np.unique(answers.best)) >= len(everything.logits.argmax(1).unique()) - 1
    assert test.to_bytes() == make_again().to_bytes()


def make_again() -> SelfTest:
    scenes.cache_clear()
    test = self_test("cpu")
    return dataclasses.replace(test, own=good("cpu")[1].own, where=good("cpu")[1].where)


def test_without_data_the_pictures_are_made_up() -> None:
    test = self_test("cpu", photos=False)
    assert len(test.images) == 40
    report = judged(test, good("cpu")[0])
    assert report.passed, report.describe()


def test_choosing_prefers_new_codes_and_clear_answers() -> None:
    logits = np.zeros((6, 2), np.float32)
    logits[:, 0] = (1, 2, 3, 1, 2, 3)
    code = np.array([0, 0, 0, 1, 1, 1])
    margin = np.array([1, 2, 9, 9, 2, 1], np.float32)
    assert choose(Answers(logits, code, margin), 0, 2).tolist() == [2, 3]
    assert choose(Answers(logits, None, None), 0, 1).tolist() == [5]


def large_test() -> SelfTest:
    """As many numbers as a test of a 224 px model of 1,000 classes can have, none compressible."""
    random = np.random.default_rng(0)
    count, classes, places = 40, 1024, 64

    def numbers() -> NDArray[np.float32]:
        return random.normal(size=(count, classes)).astype(np.float32)

    def answers() -> StoredAnswers:
        code = random.integers(0, 1000, (count, places))
        margin = random.random((count, places), np.float32)
        columns, positions = np.arange(classes), np.arange(places)
        return stored_part(Answers(numbers(), code, margin), columns, positions)

    images = random.integers(0, 256, (count, 56, 56, 3), np.uint8)
    return SelfTest(
        *(images, 4, classes, np.arange(classes), np.arange(places), answers(), answers()),
        *("here", 0.1, 0.1, numbers(), numbers()),
    )


def test_it_stays_small_and_comes_back(tmp_path: Path) -> None:
    test = large_test()
    (tmp_path / SELFTEST).write_bytes(test.to_bytes())
    assert len(test.to_bytes()) < MOST_BYTES
    read = read_self_test(tmp_path / SELFTEST, (224, 224))
    assert isinstance(read, SelfTest)
    assert read.to_bytes() == test.to_bytes()
    large = read.pixels((224, 224), 0, 2)
    assert large.shape == (2, 224, 224, 3)
    assert (large[0, 4:8, :4] == test.images[0, 1, 0]).all()


def stored(change: dict[str, Any]) -> bytes:
    """The file of `large_test` with some arrays in place of its own; None leaves one out."""
    with np.load(io.BytesIO(large_test().to_bytes())) as arrays:
        values: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    values |= change
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in values.items() if value is not None})
    return buffer.getvalue()


def claiming(shape: str) -> bytes:
    """A member whose header promises more than there is."""
    buffer = io.BytesIO()
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(buffer, "w") as archive:
        size = len(header).to_bytes(2, "little")
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + size + header.encode() + b"x" * 8)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": np.array(3)}, "schema is 3"),
        ({"schema": np.array("2")}, "'schema' is <U1"),
        ({"images": None}, "no 'images'"),
        ({"images": np.zeros((40, 56, 56, 3), np.float32)}, "'images' is float32"),
        ({"images": np.zeros((40, 57, 56, 3), np.uint8)}, "do not fit"),
        ({"cell": np.array(0)}, "'cell' is 0"),
        ({"columns": np.array([5000])}, "not among 1024 classes"),
        ({"noise": np.array([np.nan, 1.0])}, "NaN"),
        ({"reference_logits": np.zeros((40, 3), np.float32)}, "'reference_logits' is"),
        ({"reference_code": np.zeros((40, 64), np.float64)}, "'reference_code' is float64"),
        ({"own_best": None}, "no 'own_best'"),
        ({"brighter": np.array([{}], object)}, "Python objects"),
        (b"not a zip", "not a zip"),
        (claiming("(99999999999, 99999)"), "claims to have"),
        (claiming("(100,)"), "not as long as its header claims"),
        (claiming("(-5, 3)"), "claims to have"),
        (claiming("__import__('os')"), "cannot be read"),
    ],
)
def test_a_malformed_file_gets_one_line(tmp_path: Path, change: Any, reason: str) -> None:
    (tmp_path / SELFTEST).write_bytes(change if isinstance(change, bytes) else stored(change))
    with pytest.raises(NpzError) as refused:
        read_self_test(tmp_path / SELFTEST, (224, 224))
    text = str(refused.value)
    assert reason in text
    assert len(text.splitlines()) == 1
    assert str(tmp_path / SELFTEST) in text


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.zeros((300, 1024, 1024, 3), np.uint8))
    (tmp_path / SELFTEST).write_bytes(buffer.getvalue())
    with pytest.raises(NpzError, match="claims to have 943718400 bytes"):
        read_self_test(tmp_path / SELFTEST, (1024, 1024))


def old_file(path: Path) -> dict[str, NDArray[Any]]:
    """What the first schema stored."""
    model = load(path)
    images = pictures(4, model.size, fine=False)
    raw = model.run(images)
    assert raw.code is not None
    assert raw.margin is not None
    return {"images": images, "logits": raw.logits, "code": raw.code, "margin": raw.margin}


def test_bundles_of_an_older_edgekit_are_judged_by_their_rule() -> None:
    path = pack("cpu", graph("cpu"), bundles.made().card.preprocessing, "old")
    arrays = old_file(path)
    for logits, passes in ((arrays["logits"], True), (-arrays["logits"], False)):
        buffer = io.BytesIO()
        content: dict[str, Any] = {**arrays, "logits": logits}
        np.savez_compressed(buffer, **content)
        update_bundle(path, reports={SELFTEST: buffer.getvalue()})
        assert isinstance(read_self_test(path / SELFTEST, bundles.SIZE), OldTest)
        if not passes:
            with pytest.raises(EdgekitError, match="fails its self-test"):
                prove(load(path), open_bundle(path))
            continue
        text = prove(load(path), open_bundle(path)).describe()
        assert "self-test of 4 images" in text
        assert "an older edgekit (few: build again" in text


def test_where_a_code_is_a_tie_its_logits_may_be_others() -> None:
    """A flipped code moves an image's logits as far as it likes: only its margin tells more."""
    path, test = good("cpu")
    raw = ask(test, load(path).run, bundles.SIZE)
    assert raw.code is not None
    assert test.reference.margin is not None
    row = int(test.reference.margin[:, 0].argmin())
    margin = test.reference.margin.copy()
    margin[row] = 0.0
    tied = dataclasses.replace(
        test, own=None, reference=dataclasses.replace(test.reference, margin=margin)
    )
    code, logits = raw.code.copy(), raw.logits.copy()
    code.reshape(len(code), -1)[row] = (code.reshape(len(code), -1)[row] + 1) % 16
    logits[row] = -logits[row]
    report = check_answers(tied, raw._replace(code=code, logits=logits), "elsewhere")
    assert report.passed, report.describe()
    sure = dataclasses.replace(test, own=None)
    assert not check_answers(sure, raw._replace(logits=-logits), "elsewhere").passed
