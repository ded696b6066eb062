"""Errors and code statistics of a model on clean and corrupted images.

`Tally` counts them for features that go through a head and for images that go through a network,
float or in 8 bits. The mean corruption error here is unnormalized: the mean over corruption types
of the mean over severities of the error. Severities rotate over the images (`rotated_severities`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import UsageError
from edgekit.data.base import IndexArray
from edgekit.data.corruption_grid import rotated_severities
from edgekit.model.codebook import perplexity
from edgekit.model.vqsa import Output
from edgekit.training.corruption_schedule import CLEAN, Corruption
from edgekit.training.distributed import World
from edgekit.training.feature_store import ArrayStore
from edgekit.training.results import Evaluation
from edgekit.training.views import View

_BATCH = 256  # features that go through the head together


def evaluation_views(indices: IndexArray, corruptions: Sequence[str]) -> dict[str, list[View]]:
    """The views of all images, for clean ("") and for each corruption."""
    views = {"": [View(index, (CLEAN,)) for index in indices.tolist()]}
    table = rotated_severities(len(indices), len(corruptions))
    for name, severities in zip(corruptions, table.T.tolist(), strict=True):
        views[name] = [
            View(index, (Corruption(name, severity),))
            for index, severity in zip(indices.tolist(), severities, strict=True)
        ]
    return views


class _Output(Protocol):
    """What networks in training return, float or in 8 bits."""

    @property
    def logits(self) -> Tensor:
        """[V, classes]."""

    @property
    def code(self) -> Tensor | None:
        """[V], [V, P], or None without a codebook."""


class Choices(NamedTuple):
    """What a model chose for M images, each clean and under C corruptions; on the CPU."""

    top: Tensor  # [M, 1 + C] class
    code: Tensor | None  # [M, 1 + C] or [M, 1 + C, P]


def choices(output: _Output, each: int) -> Choices:
    """The choices for ``each`` views of every image, which come one image after the other."""
    code = None if output.code is None else output.code.cpu().unflatten(0, (-1, each))
    return Choices(output.logits.argmax(dim=1).cpu().unflatten(0, (-1, each)), code)


class Tally:
    """The counts for an `Evaluation`; those of several processes can be added."""

    def __init__(self, corruptions: Sequence[str], codebook_size: int | None) -> None:
        self._names = ("", *corruptions)
        # By type and severity (clean: 0): images, errors, vectors, vectors with the clean code.
        self._counts = torch.zeros(len(self._names), 6, 4, dtype=torch.long)
        self._usage = torch.zeros(codebook_size or 0, dtype=torch.long)

    def add(self, labels: Tensor, severities: IndexArray, model_choices: Choices) -> None:
        """Count images with their labels [M] and the severities [M, C] of their corruptions."""
        wrong, code = model_choices.top != labels[:, None], model_choices.code
        levels = torch.from_numpy(np.insert(severities, 0, 0, axis=1))
        for number in range(len(self._names)):
            for severity in levels[:, number].unique().tolist():
                rows = levels[:, number] == severity
                cell = self._counts[number, severity]
                cell[0] += int(rows.sum())
                cell[1] += int(wrong[rows, number].sum())
                if code is not None:
                    same = code[rows, number] == code[rows, 0]
                    cell[2] += same.numel()
                    cell[3] += int(same.sum())
        if code is not None and len(self._usage):
            self._usage += torch.bincount(code.flatten(), minlength=len(self._usage))

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
    """Evaluate on ``rows`` of cached features; stores by corruption name, "" for clean."""
    names = [name for name in stores if name]
    severities = rotated_severities(len(labels), len(names))
    tally = Tally(names, codebook_size)
    mine = rows[world.share(len(rows))]
    for part in _parts(mine):
        views = [
            choices(head(torch.from_numpy(stores[name].rows(part)).to(device)), 1)
            for name in ("", *names)
        ]
        codes = [view.code for view in views if view.code is not None]
        model_choices = Choices(
            torch.cat([view.top for view in views], dim=1),
            torch.cat(codes, dim=1) if codes else None,
        )
        tally.add(torch.from_numpy(labels[part]), severities[part], model_choices)
    return tally.result(world, device)


def _parts(rows: IndexArray) -> Iterator[IndexArray]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]
