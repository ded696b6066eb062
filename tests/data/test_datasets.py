import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import UsageError
from edgekit.data.builtin import FILE, Packed, pack, unpack
from edgekit.data.datasets import content_hash, labels, open_dataset, with_classes
from edgekit.data.decode import BadImage
from tests.data.images import color, png, write

# --- built in ---------------------------------------------------------------------------------


def test_built_in_images() -> None:
    dataset = open_dataset("builtin:fashion-mnist")
    assert len(dataset) == 8000
    assert len(dataset.classes) == 10
    assert {name: len(rows) for name, rows in dataset.given_splits.items()} == {
        "train": 5000, "validation": 500, "calibration": 500, "test": 2000,
    }  # fmt: skip
    image = dataset.image(0)
    assert image.shape == (28, 28, 3)
    assert image.dtype == np.uint8
    assert (image == image[:, :, :1]).all()
    for rows in dataset.given_splits.values():  # any prefix of a split is balanced
        assert np.bincount(labels(dataset, rows[:50]), minlength=10).tolist() == [5] * 10
    assert dataset.key(0).startswith("official-train/")
    assert dataset.key(7999).startswith("official-test/")
    assert len({dataset.key(i) for i in range(8000)}) == 8000
    assert len({dataset.digest(i) for i in range(8000)}) == 8000


def test_built_in_images_are_the_published_ones() -> None:
    # Content and order: every recorded result of the built-in example rests on them.
    assert content_hash(open_dataset("builtin:fashion-mnist"))[:16] == "cf12782eabb77f87"
    assert FILE.stat().st_size <= 3_000_000
    assert "Zalando SE" in FILE.with_name("LICENSE-fashion-mnist.txt").read_text()


def test_packing_round_trip() -> None:
    generator = np.random.default_rng(0)
    packed = Packed(
        generator.integers(0, 256, (5, 28, 28), np.uint8),
        generator.integers(0, 10, 5, np.uint8),
        generator.integers(0, 4, 5, np.uint8),
        generator.integers(0, 60_000, 5, np.uint16),
    )
    pairs: Iterator[tuple[Any, Any]] = zip(packed, unpack(pack(packed)), strict=True)
    for before, after in pairs:
        assert np.array_equal(before, after)
        assert before.dtype == after.dtype


def test_unknown_built_in_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'fashion-mnist'"):
        open_dataset("builtin:fashion_mnist")


# --- folders ----------------------------------------------------------------------------------


def test_folder_of_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "cat/b.png", 1)
    write(tmp_path / "cat/a.PNG", 2)
    write(tmp_path / "cat/deep/er/c.png", 3)
    write(tmp_path / "ant/z.png", 4)
    write(tmp_path / ".cache/hidden.png", 5)
    write(tmp_path / "cat/.hidden.png", 5)
    write(tmp_path / "__MACOSX/litter.png", 5)
    dataset = open_dataset(str(tmp_path))
    assert dataset.name == str(tmp_path)
    assert dataset.classes == ("ant", "cat")
    keys = [dataset.key(i) for i in range(len(dataset))]
    assert keys == ["ant/z.png", "cat/a.PNG", "cat/b.png", "cat/deep/er/c.png"]
    assert labels(dataset).tolist() == [0, 1, 1, 1]
    assert labels(dataset, [3, 0]).tolist() == [1, 0]
    assert np.array_equal(dataset.image(2), color(1))
    assert dataset.digest(0) == hashlib.sha256(png(4)).hexdigest()
    assert dataset.given_splits == {}


def test_folder_with_splits(tmp_path: Path) -> None:
    for split in ("Train", "val", "calib", "test"):
        write(tmp_path / split / "dog/1.png")
    write(tmp_path / "test/emu/2.png")
    dataset = open_dataset(str(tmp_path))
    assert dataset.classes == ("dog", "emu")  # one numbering for all splits
    keys = {split: [dataset.key(i) for i in rows] for split, rows in dataset.given_splits.items()}
    assert keys == {
        "train": ["Train/dog/1.png"],
        "validation": ["val/dog/1.png"],
        "calibration": ["calib/dog/1.png"],
        "test": ["test/dog/1.png", "test/emu/2.png"],
    }
    assert labels(dataset, dataset.given_splits["test"]).tolist() == [0, 1]


def test_folder_with_splits_and_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train/dog/1.png")
    write(tmp_path / "dog/1.png")
    with pytest.raises(UsageError, match=r"mixes split folders \('train'\) and others \('dog'\)"):
        open_dataset(str(tmp_path))


def test_classes_txt_gives_order_and_names(tmp_path: Path) -> None:
    write(tmp_path / "n02/1.png")
    write(tmp_path / "n01/1.png")
    (tmp_path / "classes.txt").write_text("n02\tgreat white shark\nn01\n\nn03\tray\n")
    dataset = open_dataset(str(tmp_path))
    assert dataset.classes == ("great white shark", "n01", "ray")
    assert [(dataset.key(i), dataset.label(i)) for i in range(2)] == [
        ("n01/1.png", 1),
        ("n02/1.png", 0),
    ]
    (tmp_path / "classes.txt").write_text("n01\n")
    with pytest.raises(UsageError, match=r"has a class 'n02' that .*classes\.txt does not list"):
        open_dataset(str(tmp_path))
    (tmp_path / "classes.txt").write_text("n01\nn02\nn01\n")
    with pytest.raises(UsageError, match=r"classes\.txt lists 'n01' 2 times"):
        open_dataset(str(tmp_path))


def test_class_without_images_and_unknown_files_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "cat/1.png")
    (tmp_path / "cat/2.heic").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with caplog.at_level(logging.WARNING):
        assert open_dataset(str(tmp_path)).classes == ("cat", "empty")
    assert "left out 1 files of type '.heic'" in caplog.text
    assert "has no images of class 'empty'" in caplog.text


def test_folder_without_classes_or_images(tmp_path: Path) -> None:
    write(tmp_path / "flat/1.png")
    with pytest.raises(UsageError, match="flat has no class folders"):
        open_dataset(str(tmp_path / "flat"))
    (tmp_path / "empty/cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="empty has no images in its class folders"):
        open_dataset(str(tmp_path / "empty"))


def test_odd_file_names_survive(tmp_path: Path) -> None:
    name = "caf\udce9 #1%20.png"  # Latin-1 bytes, as old cameras and archives write them
    try:
        write(tmp_path / "c" / name, 3)
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses such names")
    dataset = open_dataset(str(tmp_path))
    assert np.array_equal(dataset.image(0), color(3))
    from edgekit.data.splits import split_dataset

    assert len(split_dataset(dataset).fingerprint()) == 64


# --- lists ------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "path,label\n", "\ufeffLabel,Path\n"])
def test_csv(header: str, tmp_path: Path) -> None:
    write(tmp_path / "images/a, b.png", 1)
    write(tmp_path / "images/c.png", 2)
    rows = [('"images/a, b.png"', "dog"), ("images/c.png", "ant")]
    if "Label" in header:
        rows = [(label, path) for path, label in rows]
    path = tmp_path / "list.csv"
    path.write_text(header + "".join(f"{a},{b}\r\n" for a, b in rows) + "\n", encoding="utf-8")
    dataset = open_dataset(str(path))
    assert dataset.classes == ("ant", "dog")
    assert labels(dataset).tolist() == [1, 0]
    assert dataset.key(0) == "images/a, b.png"
    assert np.array_equal(dataset.image(0), color(1))


def test_jsonl_with_numbers_and_splits(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    path = tmp_path / "list.jsonl"
    lines = [
        {"path": "a.png", "label": 2, "split": "val"},
        {"path": str(tmp_path / "a.png"), "label": 0, "split": "test", "camera": "left"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    dataset = open_dataset(str(path))
    assert dataset.classes == ("0", "1", "2")
    assert labels(dataset).tolist() == [2, 0]
    assert {k: v.tolist() for k, v in dataset.given_splits.items()} == {
        "validation": [0],
        "test": [1],
    }
    assert np.array_equal(dataset.image(0), dataset.image(1))
    (tmp_path / "classes.txt").write_text("zero\none\ntwo\nthree\n")
    assert open_dataset(str(path)).classes == ("zero", "one", "two", "three")
    (tmp_path / "classes.txt").write_text("zero\n")
    with pytest.raises(UsageError, match="label 2 is not among the 1 classes"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "", "lists no images"),
        ("l.csv", "path,label\n", "lists no images"),
        ("l.csv", "a.png,cat\nb.png\n", r"l\.csv:2: a path and a label are needed"),
        ("l.csv", "a.png,\n", r"l\.csv:1: the path or the label is empty"),
        ("l.csv", "path,label,split\na,b,test\nc,d,\n", r"l\.csv:3: no split, but other lines"),
        ("l.csv", "path,label,split\na,b,trian\n", r"l\.csv:2: unknown split 'trian' \(did you"),
        ("l.csv", "a.png,9999999\n", "label 9999999 is too large for a class number"),
        ("l.jsonl", '{"path": "a", "label": 1}\n{"path"\n', r"l\.jsonl:2: not JSON"),
        ("l.jsonl", '{"path": "a"}\n', r"l\.jsonl:1: .* is needed"),
        ("l.jsonl", '["a", 1]\n', r"l\.jsonl:1: .* is needed"),
        ("l.jsonl", '{"path": "a", "label": 1.5}\n', "the label a text or a whole number"),
        ("l.jsonl", '{"path": "a", "label": true}\n', "the label a text or a whole number"),
        ("l.jsonl", '{"path": 3, "label": 1}\n', "the path must be a text"),
    ],
)
def test_mistakes_in_lists_are_located(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_list_that_is_not_text(tmp_path: Path) -> None:
    for name in ("l.csv", "l.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00,a\n")
        with pytest.raises(UsageError, match="as UTF-8"):
            open_dataset(str(tmp_path / name))


# --- all --------------------------------------------------------------------------------------


def test_nothing_there_and_no_data(tmp_path: Path) -> None:
    for uri in ("", str(tmp_path / "photos"), "imagenet-c:"):
        with pytest.raises(UsageError, match="no data at"):
            open_dataset(uri)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match=r"data\.parquet is not data: give a folder"):
        open_dataset(str(tmp_path / "data.parquet"))


def test_skip_bad_leaves_out_and_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "test"):
        for image in range(3):
            write(tmp_path / split / "cat" / f"{image}.png", image)
    (tmp_path / "train/cat/1.png").write_bytes(png(1)[:30])
    everything = open_dataset(str(tmp_path))
    bad = next(i for i in range(6) if everything.key(i) == "train/cat/1.png")
    with pytest.raises(BadImage, match=r"train/cat/1\.png"):
        everything.image(bad)
    good = open_dataset(str(tmp_path), skip_bad=True)
    assert len(good) == 5
    assert "train/cat/1.png" in caplog.text
    keys = {name: [good.key(i) for i in rows] for name, rows in good.given_splits.items()}
    assert keys["train"] == ["train/cat/0.png", "train/cat/2.png"]
    assert keys["test"] == [f"test/cat/{image}.png" for image in range(3)]


def test_skip_bad_with_nothing_left(tmp_path: Path) -> None:
    write(tmp_path / "cat/1.png")
    (tmp_path / "cat/1.png").write_bytes(b"")
    with pytest.raises(UsageError, match="none of its 1 images can be read"):
        open_dataset(str(tmp_path), skip_bad=True)


def test_with_classes_translates_labels_by_name(tmp_path: Path) -> None:
    for class_ in ("bee", "dog"):
        write(tmp_path / class_ / "1.png", 2)
    dataset = open_dataset(str(tmp_path))
    model = with_classes(dataset, ["ant", "dog", "bee"])
    assert labels(model).tolist() == [2, 1]
    assert model.classes == ("ant", "dog", "bee")
    assert (model.name, len(model)) == (dataset.name, 2)
    assert model.key(0) == dataset.key(0)
    assert model.digest(0) == dataset.digest(0)
    assert np.array_equal(model.image(0), dataset.image(0))
    assert with_classes(dataset, ["bee", "dog"]) is dataset
    with pytest.raises(UsageError, match=r"the model knows no class 'bee' \(did you mean 'bees'"):
        with_classes(dataset, ["dog", "bees"])
    with pytest.raises(UsageError, match="no class 'bee' among 1000"):
        with_classes(dataset, [str(i) for i in range(1000)])


def test_content_hash_sees_bytes_labels_and_order(tmp_path: Path) -> None:
    write(tmp_path / "a/1.png", 1)
    write(tmp_path / "b/2.png", 2)
    dataset = open_dataset(str(tmp_path))
    first = content_hash(dataset)
    assert content_hash(dataset, [0, 1]) == first
    assert content_hash(dataset, [1, 0]) != first
    (tmp_path / "a/1.png").rename(tmp_path / "a/renamed.png")
    assert content_hash(open_dataset(str(tmp_path))) == first
    write(tmp_path / "a/renamed.png", 3)
    assert content_hash(open_dataset(str(tmp_path))) != first
