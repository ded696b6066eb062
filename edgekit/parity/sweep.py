"""Who evaluates what: images in a seeded order, in blocks, each block once per model, ever.

Worker processes corrupt the images of the next block while the models answer for this one. A
block's answers are kept on disk under a hash of the model, the images and the cells, so that an
interrupted sweep goes on where it was and a second target costs only its own inferences.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset, IndexArray
from edgekit.data.loading import epoch_order
from edgekit.data.pool import Pool
from edgekit.files import write_atomically
from edgekit.parity.cells import MakeVariants, Variants
from edgekit.parity.predictors import Answers, Predictor, join

_BLOCK_BYTES = 64 << 20  # of pixels; what a sweep holds in memory is a few times this


@dataclass(frozen=True, eq=False)
class BlockPair:
    """What both models said about the same images; V = 1 + cells, the clean variant first."""

    labels: IndexArray  # [B]
    reference: Answers  # logits [B, V, classes], code and margin [B, V] or [B, V, P]
    candidate: Answers
    computed: int  # inferences done now, not found in the cache

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Sweep:
    """A comparison to be run over ``dataset``, at most ``images`` of it."""

    dataset: Dataset
    make: MakeVariants
    reference: Predictor
    candidate: Predictor
    cache: Path
    images: int
    workers: int
    seed: int = 0

    def block_size(self) -> int:
        """Images a block; depends on the image size and the cells alone."""
        height, width = self.make.preprocessing.size
        per_image = (1 + self.make.cells.count) * height * width * 3
        return max(1, min(32, _BLOCK_BYTES // per_image))

    def blocks(self) -> Generator[BlockPair, None, None]:
        """The block pairs, in the seeded order; stop iterating to stop the sweep."""
        order = epoch_order(len(self.dataset), self.seed, 0)[: self.images].tolist()
        size = self.block_size()
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        paths = [self._paths(group) for group in groups]
        absent = [not (one.exists() and two.exists()) for one, two in paths]
        tasks = (index for group, needed in zip(groups, absent, strict=True) if needed
                 for index in group)  # fmt: skip
        # Nothing to load, no workers to start.
        with Pool(self.dataset, self.make, self.workers if any(absent) else 0) as pool:
            loaded = pool.map(tasks, chunk=1)
            for group, (one, two), needed in zip(groups, paths, absent, strict=True):
                images = [next(loaded) for _ in group] if needed else []
                reference, new_one = self._answers(self.reference, one, images, group)
                candidate, new_two = self._answers(self.candidate, two, images, group)
                labels = np.array([self.dataset.label(index) for index in group], np.int64)
                yield BlockPair(labels, reference, candidate, new_one + new_two)

    def _paths(self, group: list[int]) -> tuple[Path, Path]:
        contents = "\n".join(self.dataset.digest(index) for index in group)
        shared = f"{self.make.fingerprint()}\n{contents}"
        names = [
            hashlib.sha256(f"{model.key}\n{shared}".encode()).hexdigest()[:40]
            for model in (self.reference, self.candidate)
        ]
        return self.cache / f"{names[0]}.npz", self.cache / f"{names[1]}.npz"

    def _answers(
        self, model: Predictor, path: Path, images: list[Variants], group: list[int]
    ) -> tuple[Answers, int]:
        """A model's answers for a block, and how many inferences that took."""
        variants = 1 + self.make.cells.count
        kept = _read(path, (len(group), variants))
        if kept is not None:
            return kept, 0
        if not images:  # the cached file was there a moment ago, and is damaged
            images = [self.make(self.dataset, index) for index in group]
        raw = join([model.run(image.pixels) for image in images], stack=True)
        _write(path, raw)
        return raw, len(images) * variants


def _write(path: Path, raw: Answers) -> None:
    arrays = {name: value for name, value in raw._asdict().items() if value is not None}

    def save(stream: BinaryIO) -> None:
        np.savez(stream, **arrays)

    write_atomically(path, save)


def _read(path: Path, shape: tuple[int, int]) -> Answers | None:
    """The kept answers, or None where there are none, or they are damaged (zip has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[np.generic]] = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    if "logits" not in arrays or any(value.shape[:2] != shape for value in arrays.values()):
        return None
    return Answers(arrays["logits"], arrays.get("code"), arrays.get("margin"))  # type: ignore[arg-type]
