"""Makes ``field.json``: the bundle's own answers to images that chose nothing about it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import FIELD
from edgekit.bundle.store import update_bundle
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.progress import track
from edgekit.data.base import Dataset
from edgekit.data.corruption_grid import Cells, MakeVariants, Task
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.loading import batched, default_workers, epoch_order, load_each
from edgekit.field.reference import FieldReference, make_reference
from edgekit.parity.predictors import Predictor, open_bundle_predictor
from edgekit.report.model_facts import model_facts
from edgekit.runtime.answers import Answers, join
from edgekit.steps.artifacts import Exported
from edgekit.steps.field_options import LEAST_IMAGES, FieldOptions, affordable

SECTION: Final = "field"
_NORMAL: Final = -1
_TOGETHER: Final = 8  # images whose variants are answered at a time


def options_for(
    exported: Exported, asked: int | None, available: int, console: Console
) -> FieldOptions:
    """As many images as were ``asked`` for, or else as the float model's price allows."""
    from edgekit.graph.multiply_adds import multiply_adds  # loads onnx

    if asked is not None:
        return FieldOptions(images=asked)
    options = affordable(multiply_adds(exported.onnx), exported.card.preprocessing.size)
    usual = min(available, FieldOptions().images)
    if options.price is not None and options.images < usual:
        console.info(
            f"watch: {options.images:,} of {usual:,} validation images: an answer costs "
            f"{options.price / 1e6:,.0f} million multiply-adds (--watch-images {usual} for all)"
        )
    return options


def store_reference(
    path: Path, dataset: Dataset, console: Console, options: FieldOptions, *, labeled: bool
) -> FieldReference:
    """Make the reference of the bundle at ``path`` from validation images, and store it there."""
    check_enough(dataset)
    model = open_bundle_predictor(path)
    facts = model_facts(model.model.manifest, model.name).vqsa
    size = facts.codebook_size if facts.has_codebook else 0
    reference = reference_of(model, dataset, console, options, size, labeled=labeled)
    data = json.dumps(reference.to_dict(), separators=(",", ":")).encode() + b"\n"
    update_bundle(path, sections={SECTION: options.to_dict()}, reports={FIELD: data})
    return reference


def leave_out_reference(path: Path, options: FieldOptions) -> None:
    """Note in the bundle that there were too few images, so that no later build looks again."""
    update_bundle(path, sections={SECTION: options.to_dict()}, reports={FIELD: None})


def why_too_few(dataset: Dataset) -> str:
    """Why these images cannot make a reference; "" if they can."""
    if len(dataset) >= LEAST_IMAGES:
        return ""
    return (
        f"{dataset.name} has {len(dataset)} validation images, and a monitor's reference needs "
        f"{LEAST_IMAGES}"
    )


def check_enough(dataset: Dataset) -> None:
    """Refuse fewer images than a reference needs."""
    if why := why_too_few(dataset):
        raise UsageError(f"{why}: add some, or leave out --watch")


def reference_of(
    model: Predictor,
    dataset: Dataset,
    console: Console,
    options: FieldOptions,
    codebook_size: int,
    *,
    labeled: bool,
) -> FieldReference:
    """The reference of any model with these images."""
    lab = lab_answers(model, dataset, console, options, labeled=labeled)
    return make_reference(lab.normal, lab.clean, lab.cells, codebook_size)


@dataclass(frozen=True)
class Lab:
    """A model's answers to each kind of validation images, with labels (None without any)."""

    normal: tuple[Answers, NDArray[np.int64] | None]
    clean: tuple[Answers, NDArray[np.int64] | None]
    cells: tuple[tuple[str, int, Answers, NDArray[np.int64] | None], ...]


def lab_answers(
    model: Predictor, dataset: Dataset, console: Console, options: FieldOptions, *, labeled: bool
) -> Lab:
    """What a reference is made of."""
    cells = Cells(BENCHMARK15, options.severities)
    rows = epoch_order(len(dataset), 0, 0)[: options.images].tolist()
    corrupted = rows[: min(options.corrupted, len(rows) // 2)]
    found: dict[int, list[tuple[Answers, int]]] = defaultdict(list)
    tasks = [
        *((row, cells.sample(dataset.digest(row), options.levels)) for row in corrupted),
        *((row, (0,)) for row in rows[len(corrupted) :]),
    ]
    for (row, numbers), answers in _answers(model, dataset, cells, tasks, console):
        for place, number in enumerate(numbers):
            kind = number if len(numbers) > 1 else _NORMAL
            found[kind].append((answers.part(slice(place, place + 1)), dataset.label(row)))

    def side(number: int) -> tuple[Answers, NDArray[np.int64] | None]:
        answers = join([each for each, _ in found[number]])
        labels = np.array([label for _, label in found[number]], np.int64)
        return answers, labels if labeled else None

    return Lab(
        side(_NORMAL),
        side(0),
        tuple((name, level, *side(1 + place)) for place, (name, level) in enumerate(cells.pairs)),
    )


def _answers(
    model: Predictor, dataset: Dataset, cells: Cells, tasks: list[Task], console: Console
) -> Iterator[tuple[Task, Answers]]:
    make = MakeVariants(model.preprocessing, cells)
    with closing(load_each(dataset, tasks, make, workers=default_workers(), chunk=4)) as images:
        listed = track(console, zip(tasks, images, strict=True), len(tasks), "watch")
        for group in batched(listed, _TOGETHER):  # single clean images would leave a core idle
            answers = model.run(np.concatenate([pixels for _, pixels in group]))
            end = 0
            for task, pixels in group:
                start, end = end, end + len(pixels)
                yield task, answers.part(slice(start, end))
