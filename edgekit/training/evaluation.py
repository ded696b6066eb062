"""Errors and code statistics of a model on clean and corrupted images.

The mean corruption error here is unnormalized: the mean over corruption types of the mean over
severities of the error. Severities rotate over the images (`rotated_severities`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import UsageError
from edgekit.data.base import IndexArray
from edgekit.model.codebook import perplexity
from edgekit.model.vqsa import Output
from edgekit.training.corruption_schedule import CLEAN, Corruption, rotated_severities
from edgekit.training.distributed import World
from edgekit.training.feature_store import ArrayStore
from edgekit.training.views import View

_BATCH = 256  # features that go through the head together


@dataclass(frozen=True)
class Evaluation:
    """Error fractions in [0, 1] and, of a model with a codebook, how it uses its codes."""

    images: int
    clean_error: float
    corruption_errors: dict[str, float]  # by type, the mean over severities
    mean_corruption_error: float | None  # None without corruptions
    used_codes: int | None  # of all clean and corrupted images
    code_perplexity: float | None
    code_agreement: float | None  # fraction of corrupted images with their clean image's code

    @property
    def criterion(self) -> float:
        """What early stopping minimizes."""
        mean = self.mean_corruption_error
        return self.clean_error if mean is None else mean

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def evaluation_views(indices: IndexArray, corruptions: Sequence[str]) -> dict[str, list[View]]:
    """For clean ("") and for each corruption, how every image is seen."""
    views = {"": [View(index, (CLEAN,)) for index in indices.tolist()]}
    for number, name in enumerate(corruptions):
        severities = rotated_severities(len(indices), number).tolist()
        views[name] = [
            View(index, (Corruption(name, severity),))
            for index, severity in zip(indices.tolist(), severities, strict=True)
        ]
    return views


class Answers(NamedTuple):
    """What a model said about some images."""

    wrong: Tensor  # [M] bool
    code: Tensor | None  # [M] or [M, P]


class Tally:
    """Counts that `Evaluation` is made of; those of several processes can be added."""

    def __init__(self, corruptions: Sequence[str], codebook_size: int | None) -> None:
        self._names = ("", *corruptions)
        # By type and severity (clean: 0): images, wrong ones, vectors, vectors with clean's code.
        self._counts = torch.zeros(len(self._names), 6, 4, dtype=torch.long)
        self._usage = torch.zeros(codebook_size or 0, dtype=torch.long)

    def add(self, clean: Answers, corrupted: dict[str, tuple[Answers, IndexArray]]) -> None:
        """The same images clean and under every corruption, with their severities [M]."""
        zeros = np.zeros(len(clean.wrong), np.int64)
        for number, name in enumerate(self._names):
            answers, severities = corrupted[name] if name else (clean, zeros)
            for severity in np.unique(severities).tolist():
                rows = torch.from_numpy(severities == severity)
                cell = self._counts[number, severity]
                cell[0] += int(rows.sum())
                cell[1] += int(answers.wrong[rows].sum())
                if answers.code is not None and clean.code is not None:
                    same = answers.code[rows] == clean.code[rows]
                    cell[2] += same.numel()
                    cell[3] += int(same.sum())
            if answers.code is not None:
                self._usage += torch.bincount(answers.code.flatten(), minlength=len(self._usage))

    def result(self, world: World, device: torch.device) -> Evaluation:
        """The evaluation over the images of all processes."""
        counts = world.total(self._counts.to(device)).cpu()
        usage = world.total(self._usage.to(device)).cpu()
        images, wrong = int(counts[0, 0, 0]), int(counts[0, 0, 1])
        if not images:
            raise UsageError("none of the images to evaluate on can be read: check the data")
        cells = counts[1:, 1:]  # [types, 5 severities, 4]
        by_type: dict[str, float] = {}
        for name, rows in zip(self._names[1:], cells, strict=True):
            measured = rows[rows[:, 0] > 0].double()
            by_type[name] = float((measured[:, 1] / measured[:, 0]).mean())
        vectors = int(cells[..., 2].sum())
        return Evaluation(
            images=images,
            clean_error=wrong / images,
            corruption_errors=by_type,
            mean_corruption_error=float(np.mean(list(by_type.values()))) if by_type else None,
            used_codes=int((usage > 0).sum()) if len(usage) else None,
            code_perplexity=perplexity(usage) if len(usage) else None,
            code_agreement=int(cells[..., 3].sum()) / vectors if vectors else None,
        )


def evaluate_features(
    head: Callable[[Tensor], Output],
    stores: dict[str, ArrayStore],
    labels: IndexArray,
    rows: IndexArray,
    codebook_size: int | None,
    device: torch.device,
    world: World,
) -> Evaluation:
    """Evaluate on cached features: stores by corruption name, "" for clean; ``rows`` of them."""
    names = [name for name in stores if name]
    severities = {
        name: rotated_severities(len(labels), number) for number, name in enumerate(names)
    }
    tally = Tally(names, codebook_size)
    mine = rows[world.share(len(rows))]
    for part in _parts(mine):
        truth = torch.from_numpy(labels[part])

        def answers(name: str, part: IndexArray = part, truth: Tensor = truth) -> Answers:
            features = torch.from_numpy(stores[name].rows(part)).to(device)
            return answer(head(features), truth)

        tally.add(answers(""), {name: (answers(name), severities[name][part]) for name in names})
    return tally.result(world, device)


def answer(output: Output, labels: Tensor) -> Answers:
    """Compare an output with the labels [M], on the CPU."""
    code = None if output.code is None else output.code.cpu()
    return Answers(output.logits.argmax(dim=1).cpu() != labels, code)


def _parts(rows: IndexArray) -> Iterator[IndexArray]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]
