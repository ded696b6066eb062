"""A small labeled set of clean and corrupted images, to compare INT8 graphs while making them.

They come from the validation part, never from the test images that parity uses. Every image
appears clean and under some corruptions and severities, which take turns: a fraction of the full
grid's work for the same expected mean corruption error.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.data.base import Dataset, labels
from edgekit.data.corruption_grid import Cells, MakeVariants, variant_cells
from edgekit.data.corruptions import BENCHMARK15
from edgekit.data.loading import load_each
from edgekit.data.splits import stratified_sample
from edgekit.data.transforms import Preprocessing
from edgekit.metrics.codes import code_agreement
from edgekit.metrics.corruption_error import SEVERITIES, kl_divergence, predicted_classes
from edgekit.metrics.intervals import (
    PairedErrors,
    agreement_interval,
    cell_weights,
    delta_interval,
)
from edgekit.quantize.results import Difference
from edgekit.runtime.answers import Answers


@dataclass(frozen=True, eq=False)
class Probe:
    """N images in V variants each; variant 0 is clean."""

    pixels: NDArray[np.uint8]  # [N, V, height, width, 3]
    labels: NDArray[np.int64] | None  # [N]; None where the data's labels are not the model's
    cells: NDArray[np.int64]  # [N, V - 1]: corruption number * 5 + severity - 1
    corruptions: tuple[str, ...]
    preprocessing: Preprocessing

    def flat(self) -> NDArray[np.uint8]:
        """All variants in one array: [N * V, height, width, 3]."""
        return self.pixels.reshape(-1, *self.pixels.shape[2:])

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Which of `flat` are clean."""
        count, variants = self.pixels.shape[:2]
        return np.tile(np.arange(variants) == 0, count)


def load_probe(
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    images: int,
    views: int,
    labeled: bool = True,
    seed: int = 0,
    workers: int = 0,
) -> Probe:
    """``images`` of ``dataset``, every class in proportion, each with ``views`` corruptions."""
    rows = stratified_sample(dataset, images, seed=seed)
    # In the order of a hash: otherwise a class might meet only one severity.
    order = np.argsort([hashlib.sha256(dataset.key(int(row)).encode()).digest() for row in rows])
    rows = rows[order]
    cells = variant_cells(len(rows), views, len(BENCHMARK15))
    tasks = [(int(row), (0, *(1 + cell).tolist())) for row, cell in zip(rows, cells, strict=True)]
    make = MakeVariants(preprocessing, Cells(BENCHMARK15, SEVERITIES, seed=seed))
    pixels = np.stack(list(load_each(dataset, tasks, make, workers=workers)))
    image_labels = labels(dataset)[rows] if labeled else None
    return Probe(pixels, image_labels, cells, BENCHMARK15, preprocessing)


def difference(probe: Probe, reference: Answers, candidate: Answers) -> Difference:
    """Compare two graphs' answers to `Probe.flat`."""
    count, variants = probe.pixels.shape[:2]
    kl = float(kl_divergence(reference.logits, candidate.logits).mean())
    moved = margin_change(reference, candidate)
    code_clean = code_corrupted = code_all = None
    if reference.code is not None and candidate.code is not None:
        flat = [code.reshape(count * variants, -1) for code in (reference.code, candidate.code)]
        same = code_agreement(flat[0], flat[1]).reshape(count, variants)
        code_clean = float(same[:, 0].mean())
        code_all = agreement_interval(same.mean(axis=1))
        if variants > 1:
            code_corrupted = agreement_interval(same[:, 1:].mean(axis=1))
    if probe.labels is None:
        return Difference(kl, moved, code_clean, code_corrupted, code_all, None, None, None, None)
    wrong = [
        (predicted_classes(answers.logits, model="model", cell="the probe images")).reshape(
            count, variants
        )
        != probe.labels[:, None]
        for answers in (reference, candidate)
    ]
    change = wrong[1].astype(np.int8) - wrong[0].astype(np.int8)
    clean = PairedErrors(change[:, :1, None], ("clean",), (1,), "none")
    paired, error = None, None
    if variants > 1:
        paired = _paired(probe, change[:, 1:])
        error = _mean_error(probe, wrong[1][:, 1:])
    return Difference(
        kl,
        moved,
        code_clean,
        code_corrupted,
        code_all,
        100 * float(wrong[1][:, 0].mean()),
        error,
        delta_interval(clean),
        None if paired is None else delta_interval(paired),
    )


def margin_change(reference: Answers, candidate: Answers) -> float | None:
    """How far scores moved, even where no code flipped.

    A margin counts as negative where the candidate chose another code: exact if that is the
    reference's runner-up, nearly exact if it is a third.
    """
    if reference.code is None or candidate.code is None:
        return None
    if reference.margin is None or candidate.margin is None:
        return None
    same = reference.code == candidate.code
    signed = np.where(same, candidate.margin, -candidate.margin)
    return float(np.sqrt(np.square(signed.astype(np.float64) - reference.margin).mean()))


def _grid(probe: Probe, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values [N, V - 1] scattered to [N, corruptions, severities], and a mask of these places."""
    count = len(values)
    width = len(probe.corruptions) * len(SEVERITIES)
    grid = np.zeros((count, width), values.dtype)
    mask = np.zeros((count, width), np.bool_)
    rows = np.arange(count)[:, None]
    grid[rows, probe.cells] = values
    mask[rows, probe.cells] = True
    shape = (count, len(probe.corruptions), len(SEVERITIES))
    return grid.reshape(shape), mask.reshape(shape)


def _paired(probe: Probe, change: NDArray[np.int8]) -> PairedErrors | None:
    grid, mask = _grid(probe, change)
    if not mask.any(axis=0).all():
        raise EdgekitError(
            f"{len(change)} images do not cover all {mask[0].size} corruptions and severities: "
            "take more"
        )
    return PairedErrors(grid, probe.corruptions, SEVERITIES, "none", mask)


def _mean_error(probe: Probe, wrong: NDArray[np.bool_]) -> float:
    grid, mask = _grid(probe, wrong)
    by_cell = grid.sum(axis=0) / mask.sum(axis=0)
    return float((by_cell * cell_weights(probe.corruptions, SEVERITIES, "none")).sum())
