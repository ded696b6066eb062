"""Whether a reference knows what it sees, asked on clean images before anything is compared."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from edgekit.core.errors import UsageError
from edgekit.data.base import Dataset
from edgekit.data.loading import epoch_order

if TYPE_CHECKING:
    from edgekit.parity.predictors import Predictor

_TRIED: Final = 256  # images
_BATCH: Final = 32
_SURE: Final = 0.05  # chance that a reference as good as one answer for all looks this much better


@dataclass(frozen=True)
class ReferenceCheck:
    """The reference on clean images, beside always saying the most frequent class."""

    state: Literal["better", "barely better", "no better"]
    """Barely: chance explains its lead with 5% or more. No better goes on only if told to."""
    images: int
    right: int
    majority_right: int
    majority_class: str
    chance: float
    """One-sided exact sign test of the images on which one of the two alone is right."""

    def sentence(self, reference: str) -> str:
        """What is doubtful; empty if nothing is."""
        if self.state == "better":
            return ""
        text = (
            f"the reference {reference} is right on {self.right} of {self.images} clean images, "
            f"and always saying '{self.majority_class}' on {self.majority_right}: "
        )
        if self.state == "no better":
            return f"{text}its preprocessing or the labels are wrong"
        return (
            f"{text}that may be chance (p = {self.chance:.2f}), and its preprocessing or the "
            "labels wrong"
        )


def check_reference(
    reference: Predictor, dataset: Dataset, seed: int, *, allow_weak: bool = False
) -> ReferenceCheck | None:
    """Refuse a reference that does no better than one answer for all, unless ``allow_weak``.

    Then the preprocessing or the labels are wrong, and hours of comparing would say nothing. None
    if all images are of one class: then that answer is always right.
    """
    rows = epoch_order(len(dataset), seed, 0)[:_TRIED]
    labels = np.array([dataset.label(int(row)) for row in rows])
    if len(np.unique(labels)) < 2:
        return None
    answers = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        pixels = np.stack([reference.preprocessing.fit(dataset.image(int(row))) for row in part])
        answers.append(reference.run(pixels).logits.argmax(axis=1))
    most = int(np.bincount(labels).argmax())
    right, constant = np.concatenate(answers) == labels, labels == most
    chance = _chance(int((right & ~constant).sum()), int((constant & ~right).sum()))
    lead = int(right.sum()) - int(constant.sum())
    found = ReferenceCheck(
        "no better" if lead <= 0 else "better" if chance < _SURE else "barely better",
        len(rows),
        int(right.sum()),
        int(constant.sum()),
        dataset.classes[most],
        chance,
    )
    if found.state == "no better" and not allow_weak:
        raise UsageError(
            f"{found.sentence(reference.name)}; --allow-weak-reference goes on all the same"
        )
    return found


def _chance(better: int, worse: int) -> float:
    """How often as many or more of ``better + worse`` fair coins show heads as ``better``."""
    coins = better + worse
    heads = sum(comb(coins, count) for count in range(better, coins + 1))
    return float(heads / 2**coins)
