from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import UsageError
from edgekit.data.datasets import ImageNetC, labels, open_dataset
from tests.data.images import color, write


def imagenet_c(root: Path, clean: bool = True) -> None:
    for number, cell in enumerate(
        [f"{c}/{s}" for c in ("gaussian_noise", "blur/defocus_blur") for s in range(1, 6)]
        + (["clean"] if clean else [])
    ):
        for image in range(2):
            for class_ in ("n01", "n02"):
                write(root / cell / class_ / f"{image}.JPEG", number)


def test_imagenet_c(tmp_path: Path) -> None:
    imagenet_c(tmp_path)
    dataset = open_dataset(f"imagenet-c:{tmp_path}")
    assert isinstance(dataset, ImageNetC)
    assert dataset.classes == ("n01", "n02")
    assert len(dataset) == 4
    assert dataset.given_splits["test"].tolist() == [0, 1, 2, 3]
    cells = dataset.cells()
    assert set(cells) == {(c, s) for c in ("gaussian_noise", "defocus_blur") for s in range(1, 6)}
    for cell in cells.values():  # images pair up across cells and with the clean ones
        assert [cell.key(i) for i in range(4)] == [dataset.key(i) for i in range(4)]
        assert labels(cell).tolist() == labels(dataset).tolist() == [0, 0, 1, 1]
    assert np.array_equal(cells["gaussian_noise", 2].image(0), color(1))
    assert np.array_equal(cells["defocus_blur", 1].image(0), color(5))
    assert np.array_equal(dataset.image(0), color(10))
    assert cells["defocus_blur", 1].name.endswith("/blur/defocus_blur/1")


def test_classes_with_the_names_of_severities(tmp_path: Path) -> None:
    for cell in ("clean", "fog/1", "fog/2"):
        for class_ in ("1", "2"):
            write(tmp_path / cell / class_ / "0.png", 0)
    dataset = open_dataset(f"imagenet-c:{tmp_path}")
    assert isinstance(dataset, ImageNetC)
    assert set(dataset.cells()) == {("fog", 1), ("fog", 2)}


def test_imagenet_c_without_clean_images(tmp_path: Path) -> None:
    imagenet_c(tmp_path, clean=False)
    dataset = open_dataset(f"imagenet-c:{tmp_path}")
    assert isinstance(dataset, ImageNetC)
    assert len(dataset) == 0
    assert dataset.clean is None
    assert len(dataset.cells()["gaussian_noise", 5]) == 4
    with pytest.raises(UsageError, match="has no clean images"):
        dataset.image(0)


def test_imagenet_c_with_a_cell_unpacked_halfway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    imagenet_c(tmp_path)
    (tmp_path / "gaussian_noise/3/n02/1.JPEG").unlink()
    dataset = open_dataset(f"imagenet-c:{tmp_path}")
    assert isinstance(dataset, ImageNetC)
    with pytest.raises(UsageError, match=r"gaussian_noise/3 lacks n02/1\.JPEG, which"):
        dataset.cells()
    lenient = open_dataset(f"imagenet-c:{tmp_path}", skip_bad=True)
    assert isinstance(lenient, ImageNetC)
    assert {len(cell) for cell in lenient.cells().values()} == {3}
    assert "left out 1 images" in caplog.text


def test_imagenet_c_with_another_class_in_a_cell(tmp_path: Path) -> None:
    imagenet_c(tmp_path)
    write(tmp_path / "gaussian_noise/3/n99/1.JPEG")
    dataset = open_dataset(f"imagenet-c:{tmp_path}")
    assert isinstance(dataset, ImageNetC)
    with pytest.raises(UsageError, match="has a class 'n99' that the rest"):
        dataset.cells()


def test_imagenet_c_that_is_none(tmp_path: Path) -> None:
    write(tmp_path / "cat/1.png")
    with pytest.raises(UsageError, match="has no folders like gaussian_noise/1"):
        open_dataset(f"imagenet-c:{tmp_path}")
