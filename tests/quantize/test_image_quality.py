"""The measures of an image's quality move with the corruption that they are about, and choose."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgekit.core.errors import UsageError
from edgekit.data.base import Subset, stored_file
from edgekit.data.corruptions import corrupt
from edgekit.data.datasets import open_dataset
from edgekit.data.decode import decode_bytes, jpeg_step
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.calibration_images import Prepare, candidates, choose_images
from edgekit.quantize.image_quality import Quality, measure
from edgekit.quantize.quality_selection import Measure, choose_by_quality, levels
from edgekit.quantize.recipes import Recipe

FIXTURE = Path(__file__).parents[1] / "data/fixtures/corruptions-224.npz"
SMALL = Preprocessing(size=(96, 96), crop_ratio=1.0)
MOVES = (
    ("sharpness", "defocus_blur", -1),
    ("noise", "gaussian_noise", 1),
    ("blockiness", "jpeg_compression", 1),
    ("exposure", "brightness", 1),
    ("exposure", "contrast", -1),
)


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    with np.load(FIXTURE) as arrays:
        return decode_bytes(arrays["clean"].tobytes(), "clean")


@pytest.fixture(scope="module")
def garments() -> list[NDArray[np.uint8]]:
    dataset = open_dataset("builtin:fashion-mnist")
    return [SMALL.fit(dataset.image(i)) for i in range(16)]


def by_severity(image: NDArray[np.uint8], name: str, corruption: str) -> list[float]:
    views = [corrupt(image, corruption, level, image_id="one") for level in range(1, 6)]
    return [float(getattr(measure(view), name)) for view in (image, *views)]


@pytest.mark.parametrize(("name", "corruption", "direction"), MOVES)
def test_each_measure_moves_with_its_corruption(
    name: str,
    corruption: str,
    direction: int,
    photograph: NDArray[np.uint8],
    garments: list[NDArray[np.uint8]],
) -> None:
    """On a photograph, and in the mean of built-in images, some of which have nothing to lose."""
    for values in (
        by_severity(photograph, name, corruption),
        np.mean([by_severity(image, name, corruption) for image in garments], axis=0),
    ):
        assert (direction * np.diff(values) > 0).all(), values


def test_measures_leave_other_qualities_alone(photograph: NDArray[np.uint8]) -> None:
    clean = measure(photograph)
    brighter = measure(np.clip(photograph.astype(int) // 2 + 60, 0, 255).astype(np.uint8))
    assert brighter.sharpness == pytest.approx(clean.sharpness, abs=0.03)  # whatever the contrast
    noisy = measure(corrupt(photograph, "gaussian_noise", 3, image_id="one"))
    assert noisy.blockiness < 1
    assert noisy.exposure == pytest.approx(clean.exposure, abs=12)


@pytest.mark.parametrize("deviation", [5, 10, 20])
def test_noise_is_in_gray_levels(deviation: int) -> None:
    gray = 128 + np.random.default_rng(0).normal(0, deviation, (96, 96))
    pixels = np.repeat(gray.round().astype(np.uint8)[:, :, None], 3, axis=2)
    assert measure(pixels).noise == pytest.approx(0.8 * deviation, rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (8, 8), (10, 9)])
def test_images_too_small_for_a_measure_have_none_of_it(size: tuple[int, int]) -> None:
    values = measure(np.full((*size, 3), 77, np.uint8))
    assert values == pytest.approx(Quality(0, 0, 0, 77))


def encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def test_a_jpeg_tells_its_step(photograph: NDArray[np.uint8]) -> None:
    files = [encoded(photograph, "JPEG", quality=quality) for quality in (95, 75, 25, 7)]
    steps = [jpeg_step(file) for file in files]
    assert steps == [2, 8, 32, 114]  # 16 of the standard's table, scaled
    assert [measure(photograph, step).blockiness for step in steps if step] == [0.25, 1, 4, 14.25]
    for other in (encoded(photograph, "PNG"), files[0][:10], b"", b"\xff\xd8\xff" + bytes(9)):
        assert jpeg_step(other) is None


def test_a_clean_jpeg_is_measured_by_its_table(
    photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    for name, quality in (("fine", 95), ("coarse", 7)):
        (folder / f"{name}.jpg").write_bytes(encoded(photograph, "JPEG", quality=quality))
    Image.fromarray(photograph).save(folder / "kept.png")
    dataset = Subset(open_dataset(str(tmp_path)), [2, 0, 1])  # kept, coarse, fine
    recipe = Recipe(images=3, corrupted_share=0.5, corruptions="fog")
    look = Measure(Prepare(SMALL, seed=0))
    clean = [image for image in choose_images(dataset, recipe, seed=0) if not image.corruption]
    for image in clean:
        expected = {"cat/coarse.jpg": 14.25, "cat/fine.jpg": 0.25}.get(image.key)
        own = measure(SMALL.fit(dataset.image(image.index))).blockiness
        assert look(dataset, image).blockiness == pytest.approx(
            own if expected is None else expected
        )
    assert len(clean) == 2
    fog = dataclasses.replace(clean[0], index=1, corruption="fog", severity=3)
    assert look(dataset, fog).blockiness != 14.25  # of what the network sees
    assert stored_file(open_dataset("builtin:fashion-mnist"), 0) is None


def test_levels_are_equally_wide_so_rare_qualities_are_levels_too() -> None:
    common = [Quality(0.5, 0.0, 0.0, 100.0 + i / 100) for i in range(95)]
    rare = [Quality(0.5, 0.0, 0.0, 150.0 + 10 * i) for i in range(5)]
    codes = levels([*common, *rare])
    assert codes.shape == (100, 4)
    assert np.unique(codes[:, 0]).tolist() == [0]  # a measure that does not vary has one level
    assert np.unique(codes[:95, 3]).tolist() == [15]
    assert codes[-1, 3] == 19


def test_a_selection_by_quality_is_wider_than_its_pool_and_keeps_the_shares() -> None:
    dataset = open_dataset("builtin:fashion-mnist")
    recipe = Recipe(
        images=20, selection="quality", corrupted_share=0.5, corruptions="fog,gaussian_noise"
    )
    pool = candidates(dataset, recipe, seed=0)
    look = Measure(Prepare(SMALL, seed=0))
    qualities = [look(dataset, image) for image in pool]
    chosen = choose_by_quality(pool, recipe, qualities)
    assert chosen == choose_by_quality(pool, recipe, [look(dataset, image) for image in pool])
    assert len(set(chosen)) == 20
    kinds = [image.corruption for image in chosen]
    assert [kinds.count(kind) for kind in (None, "fog", "gaussian_noise")] == [10, 5, 5]

    codes = levels(qualities)
    taken = np.array([image in chosen for image in pool])
    assert evenness(codes[taken]) > evenness(codes) + 0.1


def evenness(codes: NDArray[np.int64]) -> float:
    """The entropy of the levels, in nats."""
    _, counts = np.unique(codes, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def test_it_needs_the_networks_size() -> None:
    dataset = open_dataset("builtin:fashion-mnist")
    with pytest.raises(UsageError, match="needs the network's size"):
        choose_images(dataset, Recipe(images=4, selection="quality"), seed=0)
