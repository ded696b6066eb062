import dataclasses

import numpy as np

from edgekit.data.datasets import open_dataset
from edgekit.data.splits import split_dataset
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.images import choose_images, load_images
from edgekit.quantize.recipes import Recipe

SMALL = Preprocessing(size=(32, 32), crop_ratio=1.0)
RECIPE = Recipe(images=40, corrupted_share=0.25, corruptions="benchmark15", severities=(2, 4))


def calibration_part():  # type: ignore[no-untyped-def]
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
