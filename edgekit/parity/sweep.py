"""Who evaluates what: images in a seeded order; no variant of an image twice by one model, ever.

Worker processes corrupt the next images while the models answer for this one. An image's answers
are kept on disk under a hash of the model and the image, variant by variant, so that an
interrupted sweep goes on where it was, a second target costs only its own inferences, and more
corruptions cost only themselves.
"""

from __future__ import annotations

import hashlib
import itertools
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset
from edgekit.data.loading import epoch_order
from edgekit.data.pool import Pool
from edgekit.files import write_atomically
from edgekit.parity.cells import MakeVariants, Task
from edgekit.parity.predictors import Answers, Predictor, join


class ImagePair(NamedTuple):
    """What both models said about the V variants of one image, the clean one first."""

    label: int
    reference: Answers  # logits [V, classes], code and margin [V] or [V, P]
    candidate: Answers
    computed: int  # inferences done now, not found in the cache


class _Kept(NamedTuple):
    """What is known already of an image's variants, by one model."""

    path: Path
    answers: Answers | None
    labels: list[str]  # a label for each row of `answers`


@dataclass(frozen=True)
class _Planned:
    """An image that is next, what its variants are called, and which must be computed."""

    index: int
    digest: str
    labels: list[str]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Sweep:
    """A comparison to be run over ``dataset``, at most ``images`` of it (0: all)."""

    dataset: Dataset
    make: MakeVariants
    reference: Predictor
    candidate: Predictor
    cache: Path
    images: int
    workers: int
    seed: int = 0

    @property
    def available(self) -> int:
        """How many images there are to look at."""
        return min(len(self.dataset), self.images or len(self.dataset))

    def pairs(self) -> Iterator[ImagePair]:
        """Image after image in the seeded order; close the iterator to stop the sweep."""
        planned = self._plan()
        for one in planned:
            if one.missing:  # only now are workers worth their start
                yield from self._with_workers(itertools.chain([one], planned))
                return
            yield self._pair(one, None)

    def _with_workers(self, planned: Iterator[_Planned]) -> Iterator[ImagePair]:
        ahead: deque[_Planned] = deque()

        def tasks() -> Iterator[Task]:
            for one in planned:
                ahead.append(one)
                # Known images travel, too, as empty tasks: that bounds how far this runs ahead.
                yield one.index, one.missing

        with Pool(self.dataset, self.make, self.workers) as pool:
            for pixels in pool.map(tasks(), chunk=1):
                yield self._pair(ahead.popleft(), pixels)

    def _plan(self) -> Iterator[_Planned]:
        order = epoch_order(len(self.dataset), self.seed, 0)[: self.available]
        for index in order.tolist():
            digest = self.dataset.digest(index)
            labels = self.make.labels(self.dataset, index)
            known = [set(self._kept(model, digest).labels) for model in self._models]
            missing = [n for n, label in enumerate(labels) if not all(label in k for k in known)]
            yield _Planned(index, digest, labels, tuple(missing))

    def _pair(self, one: _Planned, pixels: NDArray[np.uint8] | None) -> ImagePair:
        (reference, new), (candidate, also_new) = (
            self._answers(model, one, pixels) for model in self._models
        )
        return ImagePair(self.dataset.label(one.index), reference, candidate, new + also_new)

    @property
    def _models(self) -> tuple[Predictor, Predictor]:
        return self.reference, self.candidate

    def _kept(self, model: Predictor, digest: str) -> _Kept:
        text = f"{model.key}\n{self.make.fingerprint()}\n{digest}"
        name = hashlib.sha256(text.encode()).hexdigest()[:40]
        path = self.cache / name[:2] / f"{name[2:]}.npz"
        return _read(path)

    def _answers(
        self, model: Predictor, one: _Planned, pixels: NDArray[np.uint8] | None
    ) -> tuple[Answers, int]:
        """A model's answers for all variants of an image, and how many inferences that took."""
        kept = self._kept(model, one.digest)
        place = {label: row for row, label in enumerate(kept.labels)}
        new = [n for n, label in enumerate(one.labels) if label not in place]
        if not new:
            assert kept.answers is not None
            return _take(kept.answers, [place[label] for label in one.labels]), 0
        rows = [n for n in new if n in one.missing]
        if pixels is None or len(rows) < len(new):  # known a moment ago, gone or damaged by now
            pixels = self.make(self.dataset, (one.index, tuple(new)))
        else:
            pixels = pixels[[one.missing.index(n) for n in new]]
        parts = [model.run(pixels)]
        labels = [one.labels[n] for n in new]
        if kept.answers is not None:
            parts.insert(0, kept.answers)
            labels = kept.labels + labels
        everything = join(parts)
        _write(kept.path, everything, labels)
        place = {label: row for row, label in enumerate(labels)}
        return _take(everything, [place[label] for label in one.labels]), len(new)


def _take(answers: Answers, rows: Sequence[int]) -> Answers:
    where = list(rows)
    return Answers(
        answers.logits[where],
        None if answers.code is None else answers.code[where],
        None if answers.margin is None else answers.margin[where],
    )


def _write(path: Path, answers: Answers, labels: list[str]) -> None:
    arrays = {name: value for name, value in answers._asdict().items() if value is not None}

    def save(stream: BinaryIO) -> None:
        np.savez(stream, labels=np.array(labels), **arrays)

    write_atomically(path, save)


def _read(path: Path) -> _Kept:
    """The kept answers; none where there are none, or they are damaged (zip has checksums)."""
    nothing = _Kept(path, None, [])
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        labels = [str(label) for label in arrays.pop("labels")]
        answers = Answers(arrays["logits"], arrays.get("code"), arrays.get("margin"))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return nothing
    if any(value is not None and len(value) != len(labels) for value in answers):
        return nothing
    return _Kept(path, answers, labels)
