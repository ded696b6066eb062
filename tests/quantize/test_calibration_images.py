import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import UsageError
from edgekit.data.datasets import open_dataset
from edgekit.data.splits import split_dataset
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.calibration_images import (
    CalibrationImage,
    ImageList,
    choose_images,
    choose_stratified,
    listed_images,
    load_images,
    pixels_hash,
    read_list,
)
from edgekit.quantize.recipes import Recipe

SMALL = Preprocessing(size=(32, 32), crop_ratio=1.0)
RECIPE = Recipe(images=40, corrupted_share=0.25, corruptions="benchmark15", severities=(2, 4))


def calibration_part():
    dataset = open_dataset("builtin:fashion-mnist")
    return split_dataset(dataset).part("calibration", dataset)


def test_chosen_images_follow_recipe_and_seed() -> None:
    part = calibration_part()
    images = choose_images(part, RECIPE, seed=0)
    assert images == choose_images(part, RECIPE, seed=0)
    assert images != choose_images(part, RECIPE, seed=1)
    assert len({image.sha256 for image in images}) == 40
    corrupted = [image for image in images if image.corruption]
    assert len(corrupted) == 10
    assert len({image.corruption for image in corrupted}) == 10  # in turn, none twice
    assert {image.severity for image in corrupted} <= {2, 4}
    counts = np.bincount([part.label(image.index) for image in images])
    assert counts.tolist() == [4] * 10  # every class in proportion
    assert all(part.digest(image.index) == image.sha256 for image in images)


def test_fewer_images_than_asked_are_all_taken() -> None:
    part = calibration_part()
    recipe = dataclasses.replace(RECIPE, images=10_000)
    assert len(choose_images(part, recipe, seed=0)) == len(part)


def test_loading_is_the_same_for_any_number_of_workers() -> None:
    part = calibration_part()
    images = choose_images(part, RECIPE, seed=0)[:12]
    inline = load_images(part, images, SMALL, seed=0)
    assert inline.shape == (12, 32, 32, 3)
    assert np.array_equal(inline, load_images(part, images, SMALL, seed=0, workers=2))
    for image, pixels in zip(images, inline, strict=True):
        clean = SMALL.fit(part.image(image.index))
        assert np.array_equal(pixels, clean) == (image.corruption is None)


def pool(count: int) -> tuple[CalibrationImage, ...]:
    """Half clean, half of two corruptions."""
    kinds = (None, "fog", None, "snow")
    return tuple(
        CalibrationImage(i, f"{i}.png", f"{i:064d}", kinds[i % 4], 3 if kinds[i % 4] else None)
        for i in range(count)
    )


def test_a_stratified_selection_sees_every_code_and_keeps_the_shares() -> None:
    everything = pool(400)
    # Code 0 nearly always; each of the others once, all in the second half.
    codes = np.array([i - 380 if i > 380 else 0 for i in range(400)], np.int64)
    recipe = Recipe(images=60, selection="stratified", corrupted_share=0.5, corruptions="fog,snow")
    chosen = choose_stratified(everything, recipe, lambda images: codes[: len(images)])
    assert len(set(chosen)) == 60
    assert {int(codes[image.index]) for image in chosen} == set(range(20))
    shares = [sum(image.corruption == kind for image in chosen) for kind in (None, "fog", "snow")]
    assert shares == [30, 15, 15]
    again = choose_stratified(everything, recipe, lambda images: codes[: len(images)])
    assert again == chosen


def test_codes_of_maps_count_each_position() -> None:
    codes = np.zeros((8, 4), np.int64)
    codes[5] = [1, 2, 3, 4]
    recipe = Recipe(images=2, selection="stratified")
    clean = tuple(dataclasses.replace(image, corruption=None) for image in pool(8))
    chosen = choose_stratified(clean, recipe, lambda _: codes)
    assert 5 in {image.index for image in chosen}


def test_random_takes_no_account_of_classes() -> None:
    part = calibration_part()
    recipe = dataclasses.replace(RECIPE, selection="random")
    images = choose_images(part, recipe, seed=0)
    assert len({image.sha256 for image in images}) == 40
    counts = np.bincount([part.label(image.index) for image in images], minlength=10)
    assert counts.tolist() != [4] * 10
    assert images == choose_images(part, recipe, seed=0)


def test_a_stored_list_finds_its_images_by_content(tmp_path: Path) -> None:
    part = calibration_part()
    images = choose_images(part, RECIPE, seed=0)[:12]
    pixels = load_images(part, images, SMALL, seed=0)
    path = tmp_path / "images.json"
    path.write_text(ImageList(0, pixels_hash(pixels), RECIPE, images).to_json())
    listing = read_list(path)
    assert listing.recipe == RECIPE
    moved = tuple(dataclasses.replace(image, index=0) for image in listing.images)
    found = listed_images(part, dataclasses.replace(listing, images=moved), path)
    assert found == images
    assert pixels_hash(load_images(part, found, SMALL, listing.seed)) == listing.pixels


def test_a_list_of_other_images_is_refused(tmp_path: Path) -> None:
    part = calibration_part()
    images = choose_images(part, RECIPE, seed=0)[:3]
    changed = (dataclasses.replace(images[0], sha256="0" * 64), *images[1:])
    listing = ImageList(7, "", RECIPE, changed)
    with pytest.raises(UsageError, match=r"1 of the 3 images of l\.json are not in .* \(7\)"):
        listed_images(part, listing, Path("l.json"))


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"seed": "x"})])
def test_what_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"list\.json"):
        read_list(path)
