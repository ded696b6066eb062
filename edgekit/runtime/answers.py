"""What a model answers, one inference at a time or joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Raw(NamedTuple):
    """What one inference yields for B images."""

    logits: NDArray[np.float32]
    """[B, classes]"""
    code: NDArray[np.int64] | None
    """[B], or [B, P] where every position is quantized; None without a codebook."""
    margin: NDArray[np.float32] | None
    """Best minus second-best lookup score, shaped as ``code``; None where it was left out."""
    seconds: float
    """Time in the runtime, without waiting for a free one."""


def in_chunks(
    infer: Callable[[NDArray[np.uint8]], Raw], batch: NDArray[np.uint8], size: int
) -> Raw:
    """``infer`` on at most ``size`` images at a time (0: all at once), its answers joined."""
    if not len(batch):  # shapes are wanted all the same; runtimes differ on empty batches
        one = infer(np.zeros((1, *batch.shape[1:]), np.uint8))
        return Raw(
            one.logits[:0],
            None if one.code is None else one.code[:0],
            None if one.margin is None else one.margin[:0],
            0.0,
        )
    size = size or len(batch)
    return joined([infer(batch[start : start + size]) for start in range(0, len(batch), size)])


def joined(parts: Sequence[Raw]) -> Raw:
    """Several answers after each other."""
    if len(parts) == 1:
        return parts[0]
    codes = [part.code for part in parts if part.code is not None]
    margins = [part.margin for part in parts if part.margin is not None]
    return Raw(
        np.concatenate([part.logits for part in parts]),
        np.concatenate(codes) if codes else None,
        np.concatenate(margins) if margins else None,
        sum(part.seconds for part in parts),
    )


class Answers(NamedTuple):
    """What a model says about B images."""

    logits: NDArray[np.float32]  # [B, classes]
    code: NDArray[np.int64] | None  # [B] or [B, P]; None without a codebook
    margin: NDArray[np.float32] | None  # shaped as code; None where it was left out

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[Any]]) -> Answers:
        """A graph's outputs under their meaning; the first is what a foreign graph answers."""
        logits = outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))
        return cls(logits, outputs.get("code"), outputs.get("margin"))


def join(parts: Sequence[Answers]) -> Answers:
    """Several answers after each other."""
    codes = [part.code for part in parts if part.code is not None]
    margins = [part.margin for part in parts if part.margin is not None]
    return Answers(
        np.concatenate([part.logits for part in parts]),
        np.concatenate(codes) if codes else None,
        np.concatenate(margins) if margins else None,
    )
