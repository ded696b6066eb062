"""The interface of datasets, and two views of one: a subset, and one with a model's classes.

A dataset is read image by image and keeps no image in memory, unless it is small. It can be
pickled, because worker processes get a copy of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest

IndexArray = NDArray[np.int64]

# Folder names, array prefixes and list entries that mean a split, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "calib": "calibration",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
}


class Dataset(Protocol):
    """Labeled images, numbered from 0."""

    @property
    def name(self) -> str:
        """What the user called it; error messages begin with it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """The splits the data came with (train, validation, calibration, test), if any."""

    def __len__(self) -> int:
        """How many images there are."""

    def label(self, i: int) -> int:
        """The class of image ``i``."""

    def key(self, i: int) -> str:
        """A readable, stable name of image ``i`` (a relative path, an index)."""

    def digest(self, i: int) -> str:
        """SHA-256 of image ``i`` as it is stored, computed when asked for."""

    def image(self, i: int) -> NDArray[np.uint8]:
        """Image ``i`` as RGB, uint8 [H, W, 3]; raises `edgekit.data.decode.BadImage`."""


class Subset:
    """Some images of a dataset, in a given order; they keep their keys."""

    def __init__(
        self,
        dataset: Dataset,
        indices: ArrayLike,
        given_splits: Mapping[str, IndexArray] | None = None,
    ) -> None:
        self._dataset = dataset
        self._indices = as_indices(indices, len(dataset), dataset.name)
        self._given_splits = dict(given_splits or {})

    @property
    def name(self) -> str:
        """The name of the whole dataset."""
        return self._dataset.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the whole dataset."""
        return self._dataset.classes

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """Empty, unless they were translated to this subset's numbers."""
        return self._given_splits

    def __len__(self) -> int:
        return len(self._indices)

    def label(self, i: int) -> int:
        """The class of image ``i`` of this subset."""
        return self._dataset.label(int(self._indices[i]))

    def key(self, i: int) -> str:
        """The key of image ``i`` of this subset."""
        return self._dataset.key(int(self._indices[i]))

    def digest(self, i: int) -> str:
        """The digest of image ``i`` of this subset."""
        return self._dataset.digest(int(self._indices[i]))

    def image(self, i: int) -> NDArray[np.uint8]:
        """Image ``i`` of this subset."""
        return self._dataset.image(int(self._indices[i]))

    def stored(self, i: int) -> bytes | None:
        """As `stored_file` of image ``i`` of this subset."""
        return stored_file(self._dataset, int(self._indices[i]))


class Relabeled:
    """A dataset whose labels are indices into another list of classes."""

    def __init__(
        self, dataset: Dataset, classes: tuple[str, ...], positions: Sequence[int]
    ) -> None:
        self._dataset = dataset
        self._classes = classes
        self._positions = tuple(positions)

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self._dataset.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes the labels now mean."""
        return self._classes

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """The splits of the dataset."""
        return self._dataset.given_splits

    def __len__(self) -> int:
        return len(self._dataset)

    def label(self, i: int) -> int:
        """The class of image ``i`` in the new list."""
        return self._positions[self._dataset.label(i)]

    def key(self, i: int) -> str:
        """The key of image ``i``."""
        return self._dataset.key(i)

    def digest(self, i: int) -> str:
        """The digest of image ``i``."""
        return self._dataset.digest(i)

    def image(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``."""
        return self._dataset.image(i)

    def stored(self, i: int) -> bytes | None:
        """As `stored_file` of image ``i``."""
        return stored_file(self._dataset, i)


def stored_file(dataset: Dataset, i: int) -> bytes | None:
    """The encoded file of image ``i``; None where a dataset keeps pixels, or does not say."""
    stored: Callable[[int], bytes | None] | None = getattr(dataset, "stored", None)
    return None if stored is None else stored(i)


def subset(dataset: Dataset, indices: ArrayLike) -> Dataset:
    """The images ``indices`` of ``dataset``, in that order."""
    return Subset(dataset, indices)


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """``dataset`` with its labels translated, by name, to a model's list of classes.

    Without this, a folder that lacks one of the model's classes would shift every label after
    it. A class that the model does not know is an error; one without images is not.
    """
    model_classes = tuple(classes)
    if dataset.classes == model_classes:
        return dataset
    positions = {name: position for position, name in enumerate(model_classes)}
    for name in dataset.classes:
        if name not in positions:
            hint = (
                nearest(name, list(model_classes))
                if len(model_classes) <= 20
                else f" among {len(model_classes)}"
            )
            raise UsageError(f"{dataset.name}: the model knows no class '{name}'{hint}")
    return Relabeled(dataset, model_classes, [positions[name] for name in dataset.classes])


def labels(dataset: Dataset, indices: ArrayLike | None = None) -> IndexArray:
    """The labels of ``indices`` (default: of every image), int64 [M]."""
    return np.fromiter((dataset.label(i) for i in _each(dataset, indices)), np.int64)


def content_hash(dataset: Dataset, indices: ArrayLike | None = None) -> str:
    """One SHA-256 over the contents and labels of ``indices``, in order; reads every image."""
    total = hashlib.sha256()
    for i in _each(dataset, indices):
        total.update(f"{dataset.digest(i)} {dataset.label(i)}\n".encode())
    return total.hexdigest()


def array_digest(array: NDArray[np.generic]) -> str:
    """SHA-256 of an array's type, shape and content."""
    head = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def as_indices(indices: ArrayLike, count: int, name: str) -> IndexArray:
    """``indices`` as int64 [M], refused unless they lie within 0 to ``count`` - 1."""
    array = np.asarray(indices)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UsageError(f"{name}: indices must be a list of whole numbers")
    if array.min() < 0 or array.max() >= count:
        raise UsageError(
            f"{name}: index {array.min() if array.min() < 0 else array.max()} is not among its "
            f"{count} images"
        )
    return array.astype(np.int64)


def _each(dataset: Dataset, indices: ArrayLike | None) -> Iterable[int]:
    if indices is None:
        return range(len(dataset))
    return [int(i) for i in as_indices(indices, len(dataset), dataset.name)]
