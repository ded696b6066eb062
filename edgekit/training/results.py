"""What a training run reports. Apart from what trains, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgekit.core.documents import Document, fields_of


@dataclass(frozen=True)
class Evaluation:
    """Error fractions in [0, 1] and, for a model with a codebook, how it uses its codes."""

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
        return fields_of(self)


@dataclass(frozen=True)
class TrainResult(Document):
    """The files of a finished run, and the validation result of its best checkpoint."""

    SCHEMA: ClassVar = 1

    out: Path
    best: Path  # the averaged weights of the best epoch
    last: Path  # those of the last epoch
    best_epoch: int  # from 1
    epochs: int
    stopped_early: bool
    seen: tuple[str, ...]
    validated_on: tuple[str, ...]  # corruption types; none: the clean error decided
    validation: Evaluation
    skipped_images: int
    seconds: float  # of this call: hardly any if the run was finished before
