import hashlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edgekit.core.errors import UsageError
from edgekit.data.datasets import NpzDataset, labels, open_dataset
from edgekit.data.decode import BadImage
from tests.data.images import color, png

CIFAR10 = Path(
    os.environ.get("EDGEKIT_CIFAR10", "")
    or Path(__file__).resolve().parents[3] / "shared/data/cifar10-jpeg.npz"
)


def test_npz_of_pixels_is_mapped_not_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=[0, 1, 2, 1, 0], classes=["a", "b", "c"])
    dataset = open_dataset(str(tmp_path / "d.npz"))
    assert isinstance(dataset, NpzDataset)
    assert isinstance(dataset._parts[0].data, np.memmap)
    assert dataset.classes == ("a", "b", "c")
    assert labels(dataset).tolist() == [0, 1, 2, 1, 0]
    for i in range(5):
        assert np.array_equal(dataset.image(i), images[i])
    assert dataset.key(3) == "3"
    assert dataset.digest(1) != dataset.digest(2)
    with pytest.raises(IndexError):
        dataset.image(5)


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 4, 6, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_of_gray_pixels(
    shape: tuple[int, ...], order: Literal["C", "F"], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(tmp_path / "d.npz", images=np.asarray(images, order=order), labels=[[0], [1], [1]])
    dataset = open_dataset(str(tmp_path / "d.npz"))
    expected = np.repeat(images.reshape(3, 4, 6, 1), 3, axis=3)
    assert np.array_equal(dataset.image(2), expected[2])
    assert dataset.image(2).flags.writeable
    assert dataset.classes == ("0", "1")


def test_npz_compressed_and_with_splits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    np.savez_compressed(
        tmp_path / "d.npz",
        train_images=pixels[:3], train_labels=np.array([0, 1, 0], np.uint8),
        val_images=pixels[3:4], val_labels=[1],
        test_images=pixels[4:], test_labels=[1, 0],
        classes=np.array([b"cat", b"dog"]),
    )  # fmt: skip
    dataset = open_dataset(str(tmp_path / "d.npz"))
    assert dataset.classes == ("cat", "dog")
    splits = {name: rows.tolist() for name, rows in dataset.given_splits.items()}
    assert splits == {"train": [0, 1, 2], "validation": [3], "test": [4, 5]}
    assert [dataset.key(i) for i in (2, 3, 5)] == ["train/2", "validation/0", "test/1"]
    assert labels(dataset).tolist() == [0, 1, 0, 1, 1, 0]
    assert all(np.array_equal(dataset.image(i), pixels[i]) for i in range(6))


def test_npz_too_large_to_unpack_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((9, 250, 250, 3), np.uint8)
    np.savez_compressed(tmp_path / "d.npz", images=images, labels=[0] * 9)
    monkeypatch.setenv("EDGEKIT_MAX_FILE_MB", "1")
    with pytest.raises(UsageError, match=r"2 MiB of memory.* save the file with numpy\.savez, not"):
        open_dataset(str(tmp_path / "d.npz"))


def test_npz_of_encoded_files(tmp_path: Path) -> None:
    files = [png(i) for i in range(4)]
    files[2] = files[2][:50]
    np.savez(
        tmp_path / "d.npz",
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=[0, 0, 1, 1],
    )
    dataset = open_dataset(str(tmp_path / "d.npz"))
    assert np.array_equal(dataset.image(3), color(3))
    assert dataset.digest(1) == hashlib.sha256(png(1)).hexdigest()
    with pytest.raises(BadImage, match=r"d\.npz, image 2 is corrupt"):
        dataset.image(2)


def test_npz_pickles_as_its_path(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((99, 32, 32, 3), np.uint8), labels=[0] * 99)
    data = pickle.dumps(open_dataset(str(tmp_path / "d.npz")))
    assert len(data) < 1000
    assert len(pickle.loads(data)) == 99


GOOD: dict[str, Any] = {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.array([0, 1])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has no array 'labels'"),
        ({"images": None}, "has 'labels', but no 'images' or 'jpeg'"),
        ({"labels": np.array([0])}, "2 'images', but 1 labels"),
        ({"labels": np.array([0.5, 1])}, "'labels' must be a list of whole numbers"),
        ({"labels": np.array([0, -1])}, "label -1 is not among"),
        ({"classes": np.array(["only"])}, "label 1 is not among the 1 classes"),
        ({"classes": np.array([1, 2])}, "'classes' must be a list of texts"),
        ({"classes": np.array(["a", 2], object)}, "'classes' holds Python objects"),
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, "must be uint8, 0 to 255, not float32"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8)}, r"must be \[N, H, W\]"),
        ({"train_labels": np.array([0, 1])}, "has both 'labels' and 'train_labels'"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 9])}, "must be 3 whole numbers"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 5, 10])}, "do not increase"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 7, 3])}, "do not increase"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8), "labels": np.zeros(0, int)}, "has no images"),
    ],
)
def test_mistakes_in_npz_are_named(
    change: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    content: dict[str, Any] = {
        name: array for name, array in {**GOOD, **change}.items() if array is not None
    }
    np.savez(tmp_path / "d.npz", **content)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(str(tmp_path / "d.npz"))
    assert "d.npz" in str(caught.value)


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(b"no zip file")
    with pytest.raises(UsageError, match="cannot read"):
        open_dataset(str(path))
    np.savez(path, **GOOD)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="cannot read"):
        open_dataset(str(path))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00garbage")
        file.writestr("labels.npy", b"")
    with pytest.raises(UsageError, match="array 'labels' cannot be read"):
        open_dataset(str(path))


@pytest.mark.skipif(not CIFAR10.is_file(), reason="no CIFAR-10: set EDGEKIT_CIFAR10 to its .npz")
def test_cifar10() -> None:
    dataset = open_dataset(str(CIFAR10))
    assert len(dataset) == 60_000
    assert dataset.classes[:2] == ("airplane", "automobile")
    test = dataset.given_splits["test"]
    assert np.bincount(labels(dataset, test)).tolist() == [1000] * 10
    images = [dataset.image(int(i)) for i in test[::500]]
    assert all(image.shape == (32, 32, 3) for image in images)
    assert np.std(images) > 30
    assert dataset.key(int(test[7])) == "test/7"
