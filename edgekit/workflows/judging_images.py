"""The images that judge two models: those that the user names for a comparison."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.base import Dataset, subset
from edgekit.data.corruption_grid import Cells, PublishedImages
from edgekit.data.datasets import open_dataset
from edgekit.data.imagenet_c import ImageNetC
from edgekit.data.loading import default_workers
from edgekit.steps.build_data import match_classes


class JudgingImages(NamedTuple):
    """Images, the cells they go through, and whether their labels mean the models' classes."""

    dataset: Dataset
    cells: Cells
    published: PublishedImages | None
    labeled: bool


def judging_images(
    console: Console, uri: str, cells: Cells, classes: tuple[str, ...], skip_bad: bool
) -> JudgingImages:
    """The images at ``uri``: their test or validation part, or all if they have none."""
    published = None
    opened = open_dataset(uri, skip_bad=skip_bad, workers=default_workers())
    if isinstance(opened, ImageNetC):
        published = PublishedImages(opened, cells)
        cells = dataclasses.replace(cells, kind="published")
    dataset, labeled, note = match_classes(published or _judging_part(opened), classes)
    if note:
        console.warn(note)
    return JudgingImages(dataset, cells, published, labeled)


def _judging_part(dataset: Dataset) -> Dataset:
    for part in ("test", "validation"):
        rows = dataset.given_splits.get(part, np.zeros(0, np.int64))
        if len(rows):
            return subset(dataset, rows)
    if not len(dataset):
        raise UsageError(f"{dataset.name} has no images")
    return dataset
