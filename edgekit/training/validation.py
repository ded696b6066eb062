"""Evaluation on images, for models whose backbone learns: each clean and under every corruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.data.base import IndexArray
from edgekit.data.corruption_grid import rotated_severities
from edgekit.data.loading import batched
from edgekit.data.pool import Pool
from edgekit.data.transforms import Preprocessing
from edgekit.model.vqsa import VQSA
from edgekit.training.corruption_schedule import CLEAN, Corruption
from edgekit.training.distributed import World
from edgekit.training.evaluation import Tally, choices
from edgekit.training.results import Evaluation
from edgekit.training.views import LoadedViews, Unreadable, View

_VIEWS = 64  # about this many go through the network together


class Group(NamedTuple):
    """A few images, each in 1 + C views, ready for a network."""

    pixels: NDArray[np.float32]  # [M * (1 + C), 3, H, W], normalized
    labels: Tensor  # [M]
    severities: IndexArray  # [M, C]


def image_groups(
    indices: IndexArray,
    corruptions: Sequence[str],
    preprocessing: Preprocessing,
    pool: Pool[View, LoadedViews | Unreadable],
    world: World,
) -> Iterator[Group]:
    """This process's share of the images ``indices``; those that cannot be read are left out."""
    severities = rotated_severities(len(indices), len(corruptions))
    rows = np.arange(len(indices))[world.share(len(indices))]
    views = (
        View(int(indices[row]), (CLEAN, *map(Corruption, corruptions, severities[row].tolist())))
        for row in rows
    )
    results = zip(rows, pool.map(views), strict=True)
    for group in batched(results, max(1, _VIEWS // (1 + len(corruptions)))):
        readable = [(row, result) for row, result in group if isinstance(result, LoadedViews)]
        if readable:
            yield Group(
                preprocessing.normalize(np.concatenate([result.images for _, result in readable])),
                torch.tensor([result.label for _, result in readable]),
                severities[[row for row, _ in readable]],
            )


@torch.inference_mode()
def evaluate_images(
    models: Sequence[VQSA],
    groups: Iterable[Group],
    corruptions: Sequence[str],
    device: torch.device,
    world: World,
) -> list[Evaluation]:
    """Evaluate models with one form of head on images, as `evaluate_features` does on features.

    Each image is loaded and corrupted once for all of them.
    """
    were_training = [model.training for model in models]
    codebook = models[0].head.codebook
    size = None if codebook is None else len(codebook.usage)
    tallies = [Tally(corruptions, size) for _ in models]
    for model in models:
        model.eval()
    for group in groups:
        pixels = torch.from_numpy(group.pixels).to(device)
        for model, tally in zip(models, tallies, strict=True):
            tally.add(group.labels, group.severities, choices(model(pixels), 1 + len(corruptions)))
    for model, was_training in zip(models, were_training, strict=True):
        model.train(was_training)
    return [tally.result(world, device) for tally in tallies]
