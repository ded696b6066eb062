import dataclasses
import multiprocessing
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit.core.errors import UsageError
from edgekit.data.corruption_grid import Cells, MakeVariants, PublishedImages, choose_cells
from edgekit.data.corruptions import ALL19, corrupt
from edgekit.data.datasets import ImageNetC, open_dataset
from edgekit.data.loading import epoch_order
from edgekit.parity.answer_cache import condense
from tests.parity.models import CELLS, PREPROCESSING, coarse, images, sweep


def test_both_models_see_the_same_pixels_in_a_seeded_order(tmp_path: Path) -> None:
    reference, candidate = coarse(), coarse(key="other", blind=0.5)
    this = sweep(tmp_path, reference, candidate, seed=3)
    order = epoch_order(24, 3, 0).tolist()
    for index, pair in zip(order, this.pairs(), strict=True):
        clean = PREPROCESSING.fit(this.dataset.image(index))
        digest = this.dataset.digest(index)
        variants = np.stack(
            [clean]
            + [
                corrupt(clean, name, level, image_id=digest, seed=0)
                for name in ("gaussian_noise", "fog")
                for level in (1, 4)
            ]
        )
        assert pair.label == this.dataset.label(index)
        for model, answers in ((reference, pair.reference), (candidate, pair.candidate)):
            expected = condense(model.run(variants))
            pairs: Iterator[tuple[Any, Any]] = zip(answers, expected, strict=True)
            for found, wanted in pairs:
                assert np.array_equal(found, wanted)


def test_workers_change_nothing(tmp_path: Path) -> None:
    models = coarse(), coarse(key="other", blind=0.2)
    alone = list(sweep(tmp_path / "a", *models).pairs())
    helped = list(sweep(tmp_path / "b", *models, workers=2).pairs())
    for one, two in zip(alone, helped, strict=True):
        assert one.label == two.label
        assert np.array_equal(one.candidate.log_p, two.candidate.log_p)
    assert multiprocessing.active_children() == []


def total(this: object) -> int:
    return sum(pair.computed for pair in this.pairs())  # type: ignore[attr-defined]


def test_no_variant_is_computed_twice(tmp_path: Path) -> None:
    reference, candidate = coarse(), coarse(key="one")
    this = sweep(tmp_path, reference, candidate, images=10)
    assert total(this) == 2 * 10 * 5
    assert total(this) == 0
    more = dataclasses.replace(this, images=16)
    assert total(more) == 2 * 6 * 5
    second_target = dataclasses.replace(more, candidate=coarse(key="two"))
    asked = reference.asked
    assert total(second_target) == 16 * 5
    assert reference.asked == asked
    wider = Cells(("fog", "snow"), (1, 3, 4))  # fog 1 and 4 and clean are known
    assert total(dataclasses.replace(more, make=MakeVariants(PREPROCESSING, wider))) == 2 * 16 * 4
    assert total(more) == 0  # and were not thrown away
    reordered = dataclasses.replace(more, images=24, seed=9)
    assert total(reordered) == 2 * 8 * 5


@pytest.mark.parametrize(
    "make",
    [
        MakeVariants(PREPROCESSING, dataclasses.replace(CELLS, seed=1)),
        MakeVariants(dataclasses.replace(PREPROCESSING, crop_ratio=1), CELLS),
    ],
)
def test_other_pixels_are_other_answers(tmp_path: Path, make: MakeVariants) -> None:
    this = sweep(tmp_path, coarse(), coarse(key="one"), images=3)
    total(this)
    assert total(dataclasses.replace(this, make=make)) == 2 * 3 * 5


def test_a_changed_corruption_makes_kept_answers_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = sweep(tmp_path, coarse(), coarse(key="one"), images=2)
    total(this)
    monkeypatch.setattr("edgekit.data.corruptions.version.code_version", lambda: b"new")
    assert total(this) == 2 * 2 * 5


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "not ours"])
def test_damaged_answers_are_computed_again(tmp_path: Path, damage: str) -> None:
    this = sweep(tmp_path, coarse(), coarse(key="one"), images=4)
    before = [pair.candidate.log_p for pair in this.pairs()]
    file = next(path for path in sorted(tmp_path.glob("*/*")) if path.name != "lock")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    damaged = {"truncate": bytes(content[:-40]), "empty": b"", "not ours": b"x" * 99}
    file.write_bytes(damaged.get(damage, bytes(content)))
    pairs = list(this.pairs())
    assert sum(pair.computed for pair in pairs) == 5
    for pair, log_p in zip(pairs, before, strict=True):
        assert np.array_equal(pair.candidate.log_p, log_p)


def test_answers_that_vanish_between_planning_and_use_are_computed(tmp_path: Path) -> None:
    reference, candidate = coarse(), coarse(key="one")
    total(sweep(tmp_path, reference, candidate, images=6))
    this = sweep(tmp_path, reference, candidate)  # the last 18 are new
    pairs = this.pairs()
    next(pairs)
    shutil.rmtree(tmp_path)
    assert 1 + sum(1 for _ in pairs) == 24
    assert total(this) == 2 * 5  # the first one's went with the folder


def test_what_was_done_before_a_stop_is_kept(tmp_path: Path) -> None:
    this = sweep(tmp_path, coarse(), coarse(key="one"), workers=2)
    pairs = this.pairs()
    assert len(list(islice(pairs, 5))) == 5
    pairs.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []
    assert total(this) == 2 * 19 * 5


def test_known_images_need_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this = sweep(tmp_path, coarse(), coarse(key="one"), images=3, workers=2)
    total(this)
    monkeypatch.setattr("edgekit.parity.executors.Pool", None)  # would fail
    assert total(this) == 0


def test_choosing_cells() -> None:
    assert choose_cells(None, (1, 2, 3, 4, 5), False, 0).count == 75
    extra = choose_cells(None, (1, 2, 3, 4, 5), True, 0)
    assert extra.count == 95
    assert extra.corruptions == ALL19
    assert choose_cells("fog,speckle_noise", (3, 3), True, 0).corruptions == (
        *("fog", "speckle_noise"),
        *("gaussian_blur", "spatter", "saturate"),
    )
    with pytest.raises(UsageError, match="severities must be some of 1 to 5"):
        choose_cells(None, (0,), False, 0)
    with pytest.raises(UsageError, match="no corruption is left"):
        choose_cells("none", (1,), False, 0)


def published(root: Path, cells: Cells, count: int = 6, side: int = 32) -> None:
    """Built-in images in ImageNet-C's layout; the clean ones have their own size."""
    dataset = images(count)
    for index in range(count):
        clean = PREPROCESSING.fit(dataset.image(index))
        class_ = dataset.classes[dataset.label(index)].replace("/", " ")
        variants = [("clean", dataset.image(index))]
        for name, level in cells.pairs:
            corrupted = corrupt(clean, name, level, image_id=str(index))
            variants.append(
                (f"{name}/{level}", np.asarray(Image.fromarray(corrupted).resize((side, side))))
            )
        for cell, pixels in variants:
            path = root / cell / class_ / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def open_published(root: Path, cells: Cells) -> PublishedImages:
    dataset = open_dataset(f"imagenet-c:{root}")
    assert isinstance(dataset, ImageNetC)
    return PublishedImages(dataset, cells)


def test_the_published_layout(tmp_path: Path) -> None:
    cells = dataclasses.replace(CELLS, kind="published")
    published(tmp_path / "c", cells)
    data = open_published(tmp_path / "c", cells)
    assert len(data) == 6
    make = MakeVariants(PREPROCESSING, cells, data)
    pixels = make(data, (2, (0, 1, 3)))
    assert np.array_equal(pixels[0], PREPROCESSING.fit(data.image(2)))
    key = data.key(2)
    stored = np.asarray(Image.open(tmp_path / "c/fog/1" / key))
    assert np.array_equal(pixels[2], stored)  # used as it is: it was resized and cropped already
    this = sweep(tmp_path / "cache", coarse(), coarse(key="one"), dataset=data, make=make)
    assert total(this) == 2 * 6 * 5
    assert total(this) == 0
    changed = tmp_path / "c/fog/4" / key
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    assert total(this) == 2  # that one variant, by both models
    helped = dataclasses.replace(this, cache=tmp_path / "other", workers=2)
    for one, two in zip(this.pairs(), helped.pairs(), strict=True):
        assert np.array_equal(one.reference.log_p, two.reference.log_p)


def test_published_images_of_another_size_are_fitted(tmp_path: Path) -> None:
    cells = dataclasses.replace(CELLS, kind="published")
    published(tmp_path, cells, count=2, side=64)
    data = open_published(tmp_path, cells)
    pixels = MakeVariants(PREPROCESSING, cells, data)(data, (0, (1,)))
    assert pixels.shape == (1, 32, 32, 3)


def test_incomplete_published_folders(tmp_path: Path) -> None:
    published(tmp_path, CELLS, count=4)
    with pytest.raises(UsageError, match="has no snow/1: add it, or leave it out"):
        open_published(tmp_path, Cells(("fog", "snow"), (1,)))
    clean = next((tmp_path / "clean").glob("*/*.png"))
    clean.unlink()
    with pytest.raises(UsageError, match=r"'clean' lacks .*: name the clean files like the"):
        open_published(tmp_path, CELLS)
    shutil.rmtree(tmp_path / "clean")
    with pytest.raises(UsageError, match="has no clean images: add the folder 'clean'"):
        open_published(tmp_path, CELLS)
    shutil.rmtree(tmp_path / "fog/4")
    (tmp_path / "fog/4").mkdir()
    with pytest.raises(UsageError, match="lacks"):
        open_published(tmp_path, CELLS)
