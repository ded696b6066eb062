"""The images that judge two models, and the sweep of both over them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from edgekit.core.cache_space import use_cache
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.base import Dataset, subset
from edgekit.data.corruption_grid import Cells, MakeVariants, PublishedImages
from edgekit.data.datasets import open_dataset
from edgekit.data.imagenet_c import ImageNetC
from edgekit.data.loading import default_workers
from edgekit.data.transforms import Preprocessing
from edgekit.parity.answer_cache import LIMIT, limit_bytes
from edgekit.parity.options import ParityOptions
from edgekit.parity.predictors import Predictor
from edgekit.parity.sweep import Lineup, Sweep
from edgekit.steps.build_data import match_classes
from edgekit.steps.context import Context


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


def sweep_over(
    context: Context,
    options: ParityOptions,
    reference: Predictor,
    candidate: Predictor,
    images: JudgingImages,
    pixels: Preprocessing,
) -> Sweep:
    """Both models over ``images``, which are prepared as ``pixels`` says."""
    use_cache(context.cache)
    sweep = Sweep(
        dataset=images.dataset,
        make=MakeVariants(pixels, images.cells, images.published),
        reference=reference,
        candidate=candidate,
        cache=context.cache / "parity",
        images=options.images,
        workers=default_workers(),
        seed=options.seed,
        cache_bytes=limit_bytes(),
        executor=context.executor,
    )
    _tell_size(context.console, sweep.lineup)
    return sweep


def lineup_over(
    context: Context,
    options: ParityOptions,
    models: tuple[Predictor, ...],
    images: JudgingImages,
    pixels: Preprocessing,
) -> Lineup:
    """All models over ``images``, which are prepared as ``pixels`` says."""
    use_cache(context.cache)
    lineup = Lineup(
        dataset=images.dataset,
        make=MakeVariants(pixels, images.cells, images.published),
        models=models,
        cache=context.cache / "parity",
        images=options.images,
        workers=default_workers(),
        seed=options.seed,
        cache_bytes=limit_bytes(),
        executor=context.executor,
    )
    _tell_size(context.console, lineup)
    return lineup


def _tell_size(console: Console, lineup: Lineup) -> None:
    """Say so if a full sweep's answers are more than the cache holds."""
    # In half precision; cached answers of other models are dropped for them.
    one = lineup.available * lineup.make.count * len(lineup.models[0].classes) * 2
    size = len(lineup.models) * one
    if size > lineup.cache_bytes:
        console.info(
            f"a full sweep has {size / 1e9:.1f} GB of answers, but only "
            f"{lineup.cache_bytes / 1e9:.1f} GB are cached ({LIMIT}): after an interruption "
            "the rest is computed again"
        )
