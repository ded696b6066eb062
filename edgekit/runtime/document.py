"""What `edgekit predict` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.core.documents import Document
from edgekit.runtime.model import Prediction


@dataclass(frozen=True)
class RankedLabel:
    """One of the most probable labels."""

    label: str
    probability: float


@dataclass(frozen=True)
class PredictedImage:
    """The model's answer for one image; with ``error`` set, only the reason why there is none."""

    source: str
    """The image's file, or FILE#NUMBER for a frame of a video, counted from 0."""
    label: str | None
    index: int | None
    """The label's index."""
    probability: float | None
    top: tuple[RankedLabel, ...]
    """The most probable labels, best first."""
    code: int | tuple[int, ...] | None
    """The codeword chosen; a list where every position of the feature map is quantized."""
    margin: float | tuple[float | None, ...] | None
    """How much better that codeword fits than the second best; null if it is the only one."""
    milliseconds: float | None
    """Time in the network; an equal share of it if several images went through together."""
    error: str | None

    @staticmethod
    def of(answer: Prediction) -> PredictedImage:
        """The answer as JSON has it."""
        return PredictedImage(
            source=answer.source,
            label=answer.label,
            index=answer.index,
            probability=answer.probability,
            top=tuple(RankedLabel(*one) for one in answer.top),
            code=answer.code,
            margin=answer.margin,
            milliseconds=answer.milliseconds,
            error=answer.error,
        )


@dataclass(frozen=True)
class PredictionList(Document):
    """The answers for all images, in order."""

    SCHEMA: ClassVar = 1

    bundle: Path
    runtime: Mapping[str, str | int]
    """What the runtime uses: its release, device, threads, streams and precision."""
    predictions: tuple[PredictedImage, ...]
    bad: int
    """Images that could not be read."""
