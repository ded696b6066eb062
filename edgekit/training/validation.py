"""Evaluation on images, for models whose backbone learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgekit.data.base import Dataset, IndexArray
from edgekit.data.loading import batched
from edgekit.data.pool import Pool
from edgekit.data.transforms import Preprocessing
from edgekit.model.vqsa import VQSA
from edgekit.training.corruption_schedule import CLEAN, Corruption, rotated_severities
from edgekit.training.distributed import World
from edgekit.training.evaluation import Answers, Evaluation, Tally, answer
from edgekit.training.views import Seen, Unreadable, View

_IMAGES = 64  # views that go through the network together, about


@torch.inference_mode()
def evaluate_images(
    model: VQSA,
    dataset: Dataset,
    indices: IndexArray,
    corruptions: Sequence[str],
    preprocessing: Preprocessing,
    pool: Pool[View, Seen | Unreadable],
    device: torch.device,
    world: World,
) -> Evaluation:
    """Evaluate on images ``indices``; the design is that of `evaluate_features`.

    An image that cannot be read is left out.
    """
    was_training = model.training
    model.eval()
    severities = (
        np.stack(
            [rotated_severities(len(indices), number) for number in range(len(corruptions))], axis=1
        )
        if corruptions
        else np.zeros((len(indices), 0), np.int64)
    )
    rows = np.arange(len(indices))[world.share(len(indices))]
    views = (
        View(
            int(indices[row]),
            (CLEAN, *map(Corruption, corruptions, severities[row].tolist())),
        )
        for row in rows
    )
    codebook = model.head.codebook
    tally = Tally(corruptions, None if codebook is None else len(codebook.usage))
    views_each = 1 + len(corruptions)
    results = zip(rows, pool.map(views), strict=True)
    for group in batched(results, max(1, _IMAGES // views_each)):
        seen = [(row, result) for row, result in group if isinstance(result, Seen)]
        if not seen:
            continue
        pixels = np.concatenate([result.images for _, result in seen])
        images = torch.from_numpy(preprocessing.normalize(pixels)).to(device)
        labels = torch.tensor([result.label for _, result in seen for _ in result.images])
        everything = answer(model(images), labels)
        chosen = severities[[row for row, _ in seen]]
        tally.add(
            _every(everything, 0, views_each),
            {
                name: (_every(everything, 1 + number, views_each), chosen[:, number])
                for number, name in enumerate(corruptions)
            },
        )
    model.train(was_training)
    return tally.result(world, device)


def _every(answers: Answers, first: int, step: int) -> Answers:
    """The answers for view number ``first`` of each image."""
    code = answers.code
    return Answers(answers.wrong[first::step], None if code is None else code[first::step])
