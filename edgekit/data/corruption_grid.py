"""The variants of an image: clean, and every corruption at every severity (a *cell*).

They are either made in memory, at the network's size, or read from the published ImageNet-C layout.
The two are not comparable (the published files were resized and stored as JPEG), so every report
names its kind.

Not every purpose can afford all 75 cells of an image. Which variants each uses:

| purpose | variants of an image | which severities |
|---|---|---|
| parity and its sample | clean and in all cells, or in some of each corruption | `Cells.sample` |
| validation in training and fine-tuning | clean and once a corruption | `rotated_severities` |
| accuracy control, sensitivity, the guard | clean and in a few cells | `variant_cells` |
| calibration | clean or in one cell | drawn by the image's own hash, as the recipe says |
| training | as its pairing says, a new cell each epoch | `edgekit.training.corruption_schedule` |

All of them are fixed by seeds and hashes, and all severities are equally likely: the expected
error is that of the full grid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.data.base import Dataset, IndexArray
from edgekit.data.corruptions import BENCHMARK15, EXTRA4, corrupt, parse_seen
from edgekit.data.image_files import FileDataset
from edgekit.data.imagenet_c import ImageNetC
from edgekit.data.loading import epoch_order, rng_for
from edgekit.data.transforms import Preprocessing

Kind = Literal["in memory", "published"]
Cell = tuple[str, int]  # corruption, severity
Task = tuple[int, tuple[int, ...]]  # an image of the dataset, and which of its variants

_LEVELS = 5  # severities of a corruption
_PIXELS = 1  # bump when decoding or fitting changes pixels: it makes cached answers stale


@dataclass(frozen=True)
class Cells:
    """The corruptions and severities of a sweep, in the order of the arrays.

    An image has 1 + `count` variants: number 0 is clean, then the cells, severities innermost.
    """

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    kind: Kind = "in memory"
    seed: int = 0

    @property
    def count(self) -> int:
        """Cells without the clean one."""
        return len(self.corruptions) * len(self.severities)

    @property
    def pairs(self) -> list[Cell]:
        """The cells in order."""
        return [(name, level) for name in self.corruptions for level in self.severities]

    def sample(self, image: str, levels: int) -> tuple[int, ...]:
        """An image's variants: clean, and ``levels`` severities of every corruption (0: all).

        Drawn from the image's digest and the seed alone, so a resumed run draws the same ones.
        """
        steps = len(self.severities)
        if levels == 0 or levels >= steps:
            return tuple(range(1 + self.count))
        bits = rng_for(self.seed, 0, f"severities {image}").bit_generator.random_raw(
            steps + len(self.corruptions)
        )
        measured = sample_severities(bits[None], steps, levels)[0]
        return (0, *(1 + np.flatnonzero(measured)).tolist())

    def names(self) -> list[str]:
        """The names of an image's variants in error messages, the clean one first."""
        return ["clean", *(f"{name} severity {level}" for name, level in self.pairs)]


def choose_cells(
    corruptions: str | None, severities: tuple[int, ...], extra: bool, seed: int
) -> Cells:
    """The sweep that the user asked for; all 15 corruptions unless some are named."""
    names = BENCHMARK15 if corruptions is None else parse_seen(corruptions)
    if extra:
        names = (*names, *(name for name in EXTRA4 if name not in names))
    if not names:
        raise UsageError("no corruption is left to measure: name some with --corruptions")
    levels = tuple(sorted(set(severities)))
    if not levels or not set(levels) <= {1, 2, 3, 4, 5}:
        raise UsageError(f"severities must be some of 1 to 5, not {list(severities)}")
    return Cells(names, levels, "in memory", seed)


class PublishedImages:
    """A folder in ImageNet-C's layout as a dataset: the images that all ``cells`` have.

    The cells are listed once, when it is opened. Image ``i`` is the clean one; `variant` returns
    the others.
    """

    def __init__(self, data: ImageNetC, cells: Cells) -> None:
        available = data.cells()
        for cell in cells.pairs:
            if cell not in available:
                raise UsageError(
                    f"{data.name} has no {cell[0]}/{cell[1]}: add it, or leave it out with "
                    "--corruptions and --severities"
                )
        clean = data.clean
        if clean is None or not len(clean):
            raise UsageError(
                f"{data.name} has no clean images: add the folder 'clean', with the same class "
                "folders and file names as in every cell"
            )
        order = {key: i for i, key in enumerate(clean.paths)}
        first = available[cells.pairs[0]]
        rows = [i for i, key in enumerate(first.paths) if key in order]
        if len(rows) < len(first):
            missing = next(key for key in first.paths if key not in order)
            raise UsageError(
                f"{data.name}: its folder 'clean' lacks {missing}, which the corrupted ones have: "
                "name the clean files like the corrupted ones"
            )
        self._clean = replace(
            clean,
            name=data.name,
            paths=first.paths,
            labels=clean.labels[[order[key] for key in first.paths]],
        )
        # All share one list of paths and labels: otherwise each worker would get 75 copies.
        parts = (available[cell] for cell in cells.pairs)
        clean_part = self._clean
        self._variants = (
            clean_part,
            *(replace(clean_part, name=part.name, root=part.root) for part in parts),
        )

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._clean.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The class folders, or their names in ``classes.txt``."""
        return self._clean.classes

    @property
    def given_splits(self) -> Mapping[str, IndexArray]:
        """Everything is for testing."""
        return {"test": np.arange(len(self))}

    def __len__(self) -> int:
        return len(self._clean)

    def label(self, i: int) -> int:
        """The class of image ``i``."""
        return self._clean.label(i)

    def key(self, i: int) -> str:
        """Its path below the folder of any cell."""
        return self._clean.key(i)

    def digest(self, i: int) -> str:
        """The digest of the clean image ``i``."""
        return self._clean.digest(i)

    def image(self, i: int) -> NDArray[np.uint8]:
        """The clean image ``i``."""
        return self._clean.image(i)

    def variant(self, number: int) -> FileDataset:
        """All images in variant ``number``: 0 is clean, 1 the first cell."""
        return self._variants[number]


@dataclass(frozen=True)
class MakeVariants:
    """The loading function: runs in worker processes, one image per call.

    ``published`` is set if the cells are read rather than made. It is stored here, apart from the
    dataset, because that may have been relabeled or reduced.
    """

    preprocessing: Preprocessing
    cells: Cells
    published: PublishedImages | None = None

    @property
    def count(self) -> int:
        """Variants of an image, the clean one included."""
        return 1 + self.cells.count

    def __call__(self, dataset: Dataset, task: Task) -> NDArray[np.uint8]:
        """Make an image's variants: uint8 [variants, height, width, 3]."""
        index, numbers = task
        if not numbers:
            return np.empty((0, *self.preprocessing.size, 3), np.uint8)
        if self.published is not None:
            return np.stack([self._read(self.published, index, number) for number in numbers])
        clean = self.preprocessing.fit(dataset.image(index))
        identity = dataset.digest(index)
        pairs = self.cells.pairs
        pixels = np.empty((len(numbers), *clean.shape), np.uint8)
        for place, number in enumerate(numbers):
            if number == 0:
                pixels[place] = clean
            else:
                name, level = pairs[number - 1]
                pixels[place] = corrupt(clean, name, level, image_id=identity, seed=self.cells.seed)
        return pixels

    def _read(self, published: PublishedImages, index: int, number: int) -> NDArray[np.uint8]:
        image = published.variant(number).image(index)
        # Published files are already resized and cropped; doing it again would zoom in.
        if number and image.shape[:2] == self.preprocessing.size:
            return image
        return self.preprocessing.fit(image)

    def labels(self, dataset: Dataset, index: int, numbers: tuple[int, ...]) -> list[str]:
        """Labels for an image's variants that change whenever their pixels would."""
        every = ["clean", *(f"{name}/{level}" for name, level in self.cells.pairs)]
        names = [every[number] for number in numbers]
        if self.published is None:
            return names
        parts = (self.published.variant(number) for number in numbers)
        return [f"{name} {part.digest(index)}" for name, part in zip(names, parts, strict=True)]

    def fingerprint(self) -> str:
        """SHA-256 of what determines a variant's pixels, besides the image and its label."""
        from edgekit.data.corruptions.version import code_version

        document = {
            "version": _PIXELS,
            "preprocessing": self.preprocessing.to_dict(),
            "kind": self.cells.kind,
            "seed": self.cells.seed,
            "code": code_version().hex(),  # of the corruptions, and the versions of libraries
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def sample_severities(
    bits: npt.NDArray[np.uint64], severities: int, levels: int
) -> npt.NDArray[np.bool_]:
    """Which cells of each image to measure, ``levels`` severities per corruption: bool [B, C, S].

    ``bits`` [B, S + C] are random. For every corruption all severities are equally likely,
    independently of other images, so an image's score has the same mean as the one over all of its
    cells. Its corruptions divide the severities evenly among themselves, which is worth a lot: most
    of what tells images apart tells severities apart, too.
    """
    order = np.argsort(bits[:, :severities], axis=1, kind="stable")
    start = np.argsort(bits[:, severities:], axis=1, kind="stable")
    measured = np.zeros((*start.shape, severities), dtype=np.bool_)
    for step in range(levels):
        chosen = np.take_along_axis(order, (start + step) % severities, axis=1)
        np.put_along_axis(measured, chosen[:, :, None], True, axis=2)
    return measured


def rotated_severities(count: int, corruptions: int) -> IndexArray:
    """The severity of each corruption for each image: [count, corruptions].

    Every image gets every type at one severity, and each severity gets a fifth of the images:
    a fifth of the full grid's work for the same expected mean corruption error. Severities rotate
    over the images in shuffled order, because their own order may follow the classes.
    """
    rank = np.empty(count, np.int64)
    rank[epoch_order(count, 0, 0)] = np.arange(count)
    return 1 + (rank[:, None] + np.arange(corruptions)) % _LEVELS


def variant_cells(images: int, views: int, corruptions: int) -> IndexArray:
    """The cells of each image: [images, views], all different within a row."""
    number = np.arange(images)[:, None] * views + np.arange(views)
    corruption = number % corruptions
    # The severity advances with the image, and once more with every round of corruptions.
    severity = (np.arange(images)[:, None] + corruption + number // corruptions) % _LEVELS
    return np.asarray(corruption * _LEVELS + severity, np.int64)
