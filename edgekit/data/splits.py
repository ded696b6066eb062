"""Which images are for training, validation, calibration and testing.

Four parts that share no image: *train*, *validation* (early stopping and choices made while
building), *calibration* (activation ranges), *test* (parity and every published number).

1. Splits that come with the data win. Missing parts are cut out of *train*; if there are only
   train and validation, as in ImageNet's folders, the latter becomes the test set.
2. Otherwise a seeded split, in which every class has its share of every part. An image's place
   follows from the seed and its content: files may be renamed, and copies of one image, which
   occur in real collections, always end up in the same part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgekit.core.errors import UsageError
from edgekit.core.threads import in_order
from edgekit.data.base import Dataset, IndexArray, as_indices, labels, subset
from edgekit.data.decode import BadImage

__all__ = [
    "SplitSizes",
    "Splits",
    "check_disjoint",
    "split_dataset",
    "stratified_sample",
    "subset",
]


@dataclass(frozen=True)
class SplitSizes:
    """The size of each part: below 1 a fraction of the images, from 1 on a number of images.

    *train* gets the rest. A part that comes with the data keeps its size.
    """

    validation: float = 0.1
    calibration: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        """Refuse invalid sizes."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf") or (value >= 1 and value != int(value)):
                raise UsageError(
                    f"split size {field.name} must be a fraction below 1 or a number of images, "
                    f"not {value}"
                )

    def count(self, part: str, total: int) -> int:
        """How many of ``total`` images ``part`` takes."""
        size = float(getattr(self, part))
        return int(size) if size >= 1 else round(size * total)


@dataclass(frozen=True, eq=False)
class Splits:
    """Indices into one dataset, int64, ascending; ``origin`` says where they come from."""

    train: IndexArray
    validation: IndexArray
    calibration: IndexArray
    test: IndexArray
    origin: str  # "given", "given, rest seeded" or "seeded"
    seed: int
    identity: str  # SHA-256 of the keys and labels, part by part

    def part(self, name: str, dataset: Dataset) -> Dataset:
        """The images of one part; an empty one is an error that says what to do."""
        indices: IndexArray = getattr(self, name)
        if not len(indices):
            raise UsageError(
                f"{dataset.name} has no {name} images: add a folder (or array, or split column) "
                f"'{name}', or use more data"
            )
        return subset(dataset, indices)

    def fingerprint(self) -> str:
        """SHA-256 of which image is in which part, independent of where the data are stored."""
        return self.identity

    def summary(self) -> dict[str, Any]:
        """What reports and manifests record."""
        counts = {name: len(getattr(self, name)) for name in _PARTS}
        return {**counts, "origin": self.origin, "seed": self.seed, "sha256": self.identity}


_PARTS = ("train", "validation", "calibration", "test")
_CUT_ORDER = ("test", "calibration", "validation")  # if images are few, the test part first


def split_dataset(dataset: Dataset, sizes: SplitSizes | None = None, *, seed: int = 0) -> Splits:
    """Split ``dataset`` by the rules at the top of this module.

    Refuses given splits that share images between calibration and test. Reads the stored bytes of
    every image for a seeded split, and those of calibration and test for a given one.
    """
    sizes = sizes or SplitSizes()
    parts = {name: rows for name, rows in dataset.given_splits.items() if len(rows)}
    given = bool(parts)
    if "train" in parts and "validation" in parts and "test" not in parts:
        parts["test"] = parts.pop("validation")
    missing = [name for name in _CUT_ORDER if name not in parts]
    pool = parts.get("train", np.zeros(0, np.int64)) if given else np.arange(len(dataset))
    counts = {name: sizes.count(name, len(pool)) for name in missing}
    if sum(counts.values()) > len(pool) > 0:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UsageError(f"{dataset.name}: {listed} are more than the {len(pool)} images to split")
    if given and len(pool):
        # Not worth hashing a whole training folder to cut a little out of it.
        parts |= _cut(dataset, pool, [dataset.key(int(i)) for i in pool], counts, seed)
    elif not given:
        contents = _contents(dataset)
        parts = _cut(
            dataset, pool, [text or dataset.key(i) for i, text in enumerate(contents)], counts, seed
        )
    ordered = {name: np.sort(parts.get(name, np.zeros(0, np.int64))) for name in _PARTS}
    if given:
        check_disjoint(
            subset(dataset, ordered["calibration"]),
            subset(dataset, ordered["test"]),
            ("calibration", "test"),
        )
    origin = "seeded"
    if given:
        origin = "given, rest seeded" if len(pool) and missing else "given"
    return Splits(
        **ordered,
        origin=origin,
        seed=seed,
        identity=_identity(dataset, ordered),
    )


def check_disjoint(a: Dataset, b: Dataset, names: tuple[str, str] | None = None) -> None:
    """Refuse two datasets that share an image, judged by its stored bytes.

    An unreadable file shares nothing; the loader will report it.
    """
    first = {content: i for i, content in enumerate(_contents(a)) if content}
    shared = [(first[text], j) for j, text in enumerate(_contents(b)) if text in first]
    if shared:
        name_a, name_b = names or (a.name, b.name)
        i, j = shared[0]
        count = "1 image is" if len(shared) == 1 else f"{len(shared)} images are"
        raise UsageError(
            f"{count} both in {name_a} and in {name_b}, such as {a.key(i)} = {b.key(j)}: "
            f"remove one of the two"
        )


def stratified_sample(
    dataset: Dataset, count: int, *, seed: int = 0, indices: ArrayLike | None = None
) -> IndexArray:
    """``count`` of the ``indices`` (default: all), every class in proportion, ascending.

    If there are no more than ``count``, all of them.
    """
    pool = (
        np.arange(len(dataset))
        if indices is None
        else as_indices(indices, len(dataset), dataset.name)
    )
    if count >= len(pool):
        return np.sort(pool)
    keys = [dataset.key(int(i)) for i in pool]
    return np.sort(_cut(dataset, pool, keys, {"sample": count}, seed)["sample"])


def _cut(
    dataset: Dataset,
    pool: IndexArray,
    identities: Sequence[str],
    counts: Mapping[str, int],
    seed: int,
) -> dict[str, IndexArray]:
    """Deal ``pool`` out to the parts of ``counts``, class by class; the rest is "train".

    Within a class, images are sorted by the hash of (seed, identity): a shuffle that does not
    depend on any random generator's version. Equal identities stay together, so copies of one
    image may exceed a count.
    """
    targets = labels(dataset, pool)
    quotas = _quotas(targets, counts)
    part_of: dict[str, str] = {}
    dealt: dict[str, list[int]] = {name: [] for name in (*counts, "train")}
    for label in np.unique(targets).tolist():
        rows = np.flatnonzero(targets == label).tolist()
        filled = dict.fromkeys(counts, 0)
        shuffled = sorted((_place(seed, identities[row]), identities[row], row) for row in rows)
        for _, identity, row in shuffled:
            if identity not in part_of:  # else a copy decided before, perhaps in another class
                open_parts = (name for name in counts if filled[name] < quotas[name][label])
                part_of[identity] = next(open_parts, "train")
            part = part_of[identity]
            filled[part] = filled.get(part, 0) + 1
            dealt[part].append(int(pool[row]))
    return {name: np.array(rows, np.int64) for name, rows in dealt.items()}


def _place(seed: int, identity: str) -> bytes:
    text = f"{seed}\n{identity}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).digest()


def _quotas(targets: IndexArray, counts: Mapping[str, int]) -> dict[str, dict[int, int]]:
    """How many images of each class each part gets: in proportion, largest remainders first.

    The parts take their share one after another, each from what the earlier ones left, so no class
    is promised more images than it has.
    """
    classes, left = np.unique(targets, return_counts=True)
    quotas = {}
    for name, count in counts.items():
        exact = left * count / max(1, int(left.sum()))
        shares = np.floor(exact).astype(np.int64)
        largest = np.argsort(-(exact - shares), kind="stable")
        shares[largest[: count - int(shares.sum())]] += 1
        quotas[name] = dict(zip(classes.tolist(), shares.tolist(), strict=True))
        left = left - shares
    return quotas


def _contents(dataset: Dataset) -> list[str]:
    """The digest of every image; "" for a file that cannot be read."""

    def content(i: int) -> str:
        try:
            return dataset.digest(i)
        except BadImage:
            return ""

    # Hashing and reading both release the GIL.
    return list(in_order(content, range(len(dataset)), 8, "reading an image"))


def _identity(dataset: Dataset, parts: Mapping[str, IndexArray]) -> str:
    total = hashlib.sha256()
    for name, indices in parts.items():
        total.update(f"[{name}]\n".encode())
        for i in indices.tolist():
            line = f"{dataset.label(i)} {dataset.key(i)}\n"
            total.update(line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()
