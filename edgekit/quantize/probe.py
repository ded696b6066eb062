"""A small set of labeled images, clean and corrupted, that INT8 graphs are judged on while they
are made.

They come from the validation part, never from the test images that parity judges with. Every
image is seen clean and under some corruptions in turn, at severities in turn: a fraction of the
full grid's work for the same expected mean corruption error.
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
from edgekit.data.loading import load
from edgekit.data.splits import stratified_sample
from edgekit.data.transforms import Preprocessing
from edgekit.metrics.codes import code_agreement
from edgekit.metrics.corruption_error import SEVERITIES, kl_divergence, predicted_classes
from edgekit.metrics.intervals import (
    Interval,
    PairedErrors,
    agreement_interval,
    cell_weights,
    delta_interval,
)
from edgekit.runtime.answers import Answers


@dataclass(frozen=True, eq=False)
class Probe:
    """N images in V variants each, number 0 clean."""

    pixels: NDArray[np.uint8]  # [N, V, height, width, 3]
    labels: NDArray[np.int64] | None  # [N]; None where the data's labels are not the model's
    cells: NDArray[np.int64]  # [N, V - 1]: corruption number * 5 + severity - 1
    corruptions: tuple[str, ...]
    preprocessing: Preprocessing

    def flat(self) -> NDArray[np.uint8]:
        """All variants after each other: [N * V, height, width, 3]."""
        return self.pixels.reshape(-1, *self.pixels.shape[2:])


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
    # In the order of a hash, so that no class meets one severity only.
    order = np.argsort([hashlib.sha256(dataset.key(int(row)).encode()).digest() for row in rows])
    rows = rows[order]
    cells = variant_cells(len(rows), views, len(BENCHMARK15))
    tasks = [(int(row), (0, *(1 + cell).tolist())) for row, cell in zip(rows, cells, strict=True)]
    make = MakeVariants(preprocessing, Cells(BENCHMARK15, SEVERITIES, seed=seed))
    pixels = np.stack(list(load(dataset, tasks, make, workers=workers)))
    found = labels(dataset)[rows] if labeled else None
    return Probe(pixels, found, cells, BENCHMARK15, preprocessing)


@dataclass(frozen=True)
class Difference:
    """What a graph does otherwise than the float model, on a probe."""

    kl: float  # nats a variant, mean over clean and corrupted
    # Root mean square change of the lookup's margin, the score of the float model's codeword less
    # that of its best rival, in units of scores; None without a codebook.
    margin_change: float | None
    code_clean: float | None  # share of equal codes; None without a codebook
    code_corrupted: Interval | None
    code_all: Interval | None  # over all variants, clean and corrupted
    clean_error: float | None  # percent; None without labels
    corruption_error: float | None  # percent, unnormalized mean
    clean_change: Interval | None  # candidate minus reference, points
    corruption_change: Interval | None

    def drop(self, metric: str) -> Interval | None:
        """The loss in points, positive if worse."""
        if metric == "corruption-error":
            return self.corruption_change
        if self.code_all is None:
            return None
        code = self.code_all
        return Interval(
            100 * (1 - code.estimate),
            100 * (1 - code.upper),
            100 * (1 - code.lower),
            code.images,
        )


def difference(probe: Probe, reference: Answers, candidate: Answers) -> Difference:
    """Compare two graphs' answers to `Probe.flat`."""
    count, variants = probe.pixels.shape[:2]
    kl = float(kl_divergence(reference.logits, candidate.logits).mean())
    moved, code_clean, code_corrupted, code_all = (
        margin_change(reference, candidate),
        None,
        None,
        None,
    )
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
    """How far scores moved, also where no code flipped yet.

    A margin counts as negative where the candidate's code is another one: exactly so if it is the
    runner-up's, nearly so if it is a third's.
    """
    if reference.code is None or candidate.code is None:
        return None
    if reference.margin is None or candidate.margin is None:
        return None
    same = reference.code == candidate.code
    signed = np.where(same, candidate.margin, -candidate.margin)
    return float(np.sqrt(np.square(signed.astype(np.float64) - reference.margin).mean()))


def _grid(probe: Probe, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values [N, V - 1] in their places of [N, corruptions, severities], and which were taken."""
    count = len(values)
    width = len(probe.corruptions) * len(SEVERITIES)
    placed = np.zeros((count, width), values.dtype)
    taken = np.zeros((count, width), np.bool_)
    rows = np.arange(count)[:, None]
    placed[rows, probe.cells] = values
    taken[rows, probe.cells] = True
    shape = (count, len(probe.corruptions), len(SEVERITIES))
    return placed.reshape(shape), taken.reshape(shape)


def _paired(probe: Probe, change: NDArray[np.int8]) -> PairedErrors | None:
    placed, taken = _grid(probe, change)
    if not taken.any(axis=0).all():
        raise EdgekitError(
            f"{len(change)} images do not meet all {taken[0].size} corruptions and severities: "
            "take more"
        )
    return PairedErrors(placed, probe.corruptions, SEVERITIES, "none", taken)


def _mean_error(probe: Probe, wrong: NDArray[np.bool_]) -> float:
    placed, taken = _grid(probe, wrong)
    by_cell = placed.sum(axis=0) / taken.sum(axis=0)
    return float((by_cell * cell_weights(probe.corruptions, SEVERITIES, "none")).sum())
