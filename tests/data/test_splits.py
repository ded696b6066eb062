from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.data.base import array_digest
from edgekit.data.datasets import open_dataset
from edgekit.data.decode import BadImage
from edgekit.data.splits import SplitSizes, check_disjoint, split_dataset, stratified_sample, subset

PARTS = ("train", "validation", "calibration", "test")


class Memory:
    """A dataset of one-pixel images; ``contents[i]`` is image i, and may repeat."""

    name = "memory"

    def __init__(
        self,
        contents: list[int],
        labels: list[int],
        given_splits: dict[str, list[int]] | None = None,
        prefix: str = "image",
    ) -> None:
        self.contents, self._labels, self.prefix = contents, labels, prefix
        self.classes = tuple(f"class {label}" for label in range(max(labels, default=0) + 1))
        self.given_splits = {k: np.array(v, np.int64) for k, v in (given_splits or {}).items()}

    def __len__(self) -> int:
        return len(self.contents)

    def label(self, i: int) -> int:
        return self._labels[i]

    def key(self, i: int) -> str:
        return f"{self.prefix}-{i}"

    def digest(self, i: int) -> str:
        if self.contents[i] < 0:
            raise BadImage(f"cannot read {self.key(i)}")
        return array_digest(np.array(self.contents[i]))

    def image(self, i: int) -> NDArray[np.uint8]:
        return np.full((1, 1, 3), self.contents[i] % 256, np.uint8)


def parts_of(splits: object) -> dict[str, list[int]]:
    return {name: getattr(splits, name).tolist() for name in PARTS}


def test_built_in_splits_are_given_balanced_and_disjoint() -> None:
    dataset = open_dataset("builtin:fashion-mnist")
    splits = split_dataset(dataset, SplitSizes(test=0.5), seed=3)
    assert splits.origin == "given"
    assert [len(getattr(splits, name)) for name in PARTS] == [5000, 500, 500, 2000]
    for name in PARTS:
        part = splits.part(name, dataset)
        counts = np.bincount([part.label(i) for i in range(len(part))])
        assert (counts == len(part) // 10).all()
        for other in PARTS[: PARTS.index(name)]:
            check_disjoint(part, splits.part(other, dataset))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_a_seeded_split_is_a_partition_that_never_parts_copies(
    images: list[tuple[int, int]], seed: int
) -> None:
    dataset = Memory([content for content, _ in images], [label for _, label in images])
    splits = split_dataset(dataset, seed=seed)
    parts = parts_of(splits)
    assert sorted(i for rows in parts.values() for i in rows) == list(range(len(images)))
    part_of_content: dict[int, str] = {}
    for name, rows in parts.items():
        for i in rows:
            assert part_of_content.setdefault(dataset.contents[i], name) == name
    assert parts == parts_of(split_dataset(dataset, seed=seed))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 3))
def test_every_class_has_its_share(class_sizes: list[int], seed: int) -> None:
    labels = [label for label, size in enumerate(class_sizes) for _ in range(size)]
    dataset = Memory(list(range(len(labels))), labels)
    sizes = SplitSizes(validation=0.1, calibration=0.15, test=0.25)
    splits = split_dataset(dataset, sizes, seed=seed)
    for name in ("validation", "calibration", "test"):
        rows = getattr(splits, name)
        assert len(rows) == sizes.count(name, len(labels))
        for label, size in enumerate(class_sizes):
            got = sum(labels[i] == label for i in rows)
            assert abs(got - size * len(rows) / len(labels)) < 2


def test_a_place_depends_on_content_and_seed_not_on_order_or_names() -> None:
    contents = list(range(100))
    labels = [i % 2 for i in contents]
    split = split_dataset(Memory(contents, labels))
    reversed_split = split_dataset(Memory(contents[::-1], labels[::-1], prefix="renamed"))
    assert set(split.test) == {99 - i for i in reversed_split.test}
    assert split.fingerprint() != reversed_split.fingerprint()
    assert set(split.test) != set(split_dataset(Memory(contents, labels), seed=1).test)


def test_sizes_may_be_numbers_of_images() -> None:
    dataset = Memory(list(range(100)), [i % 4 for i in range(100)])
    splits = split_dataset(dataset, SplitSizes(validation=0, calibration=8, test=40))
    assert {name: len(rows) for name, rows in parts_of(splits).items()} == {
        "train": 52, "validation": 0, "calibration": 8, "test": 40,
    }  # fmt: skip
    with pytest.raises(UsageError, match="memory has no validation images"):
        splits.part("validation", dataset)
    with pytest.raises(UsageError, match="90 test, 20 calibration, 10 validation are more than"):
        split_dataset(dataset, SplitSizes(calibration=20, test=90))
    with pytest.raises(UsageError, match="split size test must be a fraction below 1 or a number"):
        SplitSizes(test=1.5)
    with pytest.raises(UsageError, match="split size validation"):
        SplitSizes(validation=float("nan"))


def test_what_given_splits_lack_is_cut_out_of_train() -> None:
    dataset = Memory(
        list(range(50)), [i % 2 for i in range(50)],
        {"train": list(range(40)), "test": list(range(40, 50))},
    )  # fmt: skip
    splits = split_dataset(dataset)
    assert splits.test.tolist() == list(range(40, 50))
    assert len(splits.validation) == len(splits.calibration) == 4
    assert sorted([*splits.train, *splits.validation, *splits.calibration]) == list(range(40))
    assert splits.origin == "given, rest seeded"


def test_train_and_validation_alone_mean_that_validation_judges() -> None:
    dataset = Memory(
        list(range(50)), [0] * 50, {"train": list(range(40)), "validation": list(range(40, 50))}
    )
    splits = split_dataset(dataset)
    assert splits.test.tolist() == list(range(40, 50))
    assert len(splits.validation) == 4
    assert splits.validation.max() < 40


def test_a_given_test_set_alone_is_left_whole() -> None:
    splits = split_dataset(Memory(list(range(9)), [0] * 9, {"test": list(range(9))}))
    assert parts_of(splits) == {
        "train": [], "validation": [], "calibration": [], "test": list(range(9)),
    }  # fmt: skip


def test_given_splits_that_calibrate_on_test_images_are_refused() -> None:
    dataset = Memory(
        [1, 2, 3, 4, 5, 1], [0] * 6, {"train": [3, 4], "calibration": [0, 1], "test": [2, 5]}
    )
    message = "1 image is both in calibration and in test, such as image-0 = image-5"
    with pytest.raises(UsageError, match=message):
        split_dataset(dataset)


def test_check_disjoint_names_an_example() -> None:
    a = Memory([1, 2, 3], [0] * 3, prefix="a")
    check_disjoint(a, Memory([4, 5, -1], [0] * 3, prefix="b"))
    with pytest.raises(UsageError, match="2 images are both in memory and in memory, such as a-"):
        check_disjoint(a, Memory([9, 3, 1], [0] * 3, prefix="b"))
    # Unreadable files are the loader's business: they share nothing.
    check_disjoint(Memory([-1], [0]), Memory([-1], [0]))


def test_copies_of_a_file_are_found_whatever_their_names(tmp_path: Path) -> None:
    for split, file in (("calibration", "one.png"), ("test", "other.png"), ("train", "t.png")):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / file).write_bytes(b"t" if split == "train" else b"same")
    dataset = open_dataset(str(tmp_path))
    with pytest.raises(UsageError, match=r"calibration/cat/one\.png = test/cat/other\.png"):
        split_dataset(dataset)


def test_fingerprint_sees_membership_and_labels() -> None:
    splits = {"train": [0, 1], "validation": [2], "calibration": [3], "test": [4, 5]}
    base = split_dataset(Memory([0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 0, 1], splits))
    relabeled = split_dataset(Memory([0, 1, 2, 3, 4, 5], [1, 1, 0, 1, 0, 1], splits))
    moved = split_dataset(
        Memory([0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 0, 1], {**splits, "train": [0], "test": [1, 4, 5]})
    )
    assert len({base.fingerprint(), relabeled.fingerprint(), moved.fingerprint()}) == 3
    assert base.summary() == {
        "train": 2, "validation": 1, "calibration": 1, "test": 2,
        "origin": "given", "seed": 0, "sha256": base.fingerprint(),
    }  # fmt: skip


def test_the_split_algorithm_is_pinned() -> None:
    # A change here moves users' images between parts: calibrated models would judge themselves.
    dataset = Memory(list(range(20)), [i % 2 for i in range(20)])
    assert parts_of(split_dataset(dataset))["test"] == [0, 1, 14, 17]


def test_stratified_sample() -> None:
    dataset = Memory(list(range(100)), [0] * 80 + [1] * 20)
    sample = stratified_sample(dataset, 10, seed=4)
    assert sample.tolist() == sorted(set(sample.tolist()))
    assert [int((sample < 80).sum()), int((sample >= 80).sum())] == [8, 2]
    assert sample.tolist() == stratified_sample(dataset, 10, seed=4).tolist()
    assert sample.tolist() != stratified_sample(dataset, 10, seed=5).tolist()
    some = stratified_sample(dataset, 4, indices=[90, 91, 92, 93, 94, 5])
    assert len(some) == 4
    assert set(some) <= {90, 91, 92, 93, 94, 5}
    assert stratified_sample(dataset, 7, indices=[3, 1]).tolist() == [1, 3]


def test_subset_translates_and_checks_indices() -> None:
    dataset = Memory([7, 8, 9], [0, 1, 0])
    part = subset(dataset, [2, 1])
    assert (len(part), part.key(0), part.label(1), part.image(0)[0, 0, 0]) == (2, "image-2", 1, 9)
    assert part.digest(1) == dataset.digest(1)
    assert part.classes == dataset.classes
    assert len(subset(dataset, [])) == 0
    for wrong in ([3], [-1]):
        with pytest.raises(UsageError, match="is not among its 3 images"):
            subset(dataset, wrong)
    with pytest.raises(UsageError, match="indices must be a list of whole numbers"):
        subset(dataset, [0.5])
