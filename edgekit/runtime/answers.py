"""What a model answers, whichever runtime computes it: of one inference, or of many joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Answers(NamedTuple):
    """What a model says about B images."""

    logits: NDArray[np.float32]
    """[B, classes]"""
    code: NDArray[np.int64] | None
    """[B], or [B, P] where every position is quantized; None without a codebook."""
    margin: NDArray[np.float32] | None
    """Best minus second-best lookup score, shaped as ``code``; None where it was left out."""
    seconds: float = 0.0
    """Time in the runtime, without waiting for a free one; 0 where nobody measured it."""

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[Any]], seconds: float = 0.0) -> Answers:
        """A graph's outputs under their meaning; the first is what a foreign graph answers."""
        logits = outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))
        return cls(logits, outputs.get("code"), outputs.get("margin"), seconds)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Those of its arrays that there are, by name; `of` is the inverse."""
        found = {"logits": self.logits, "code": self.code, "margin": self.margin}
        return {name: value for name, value in found.items() if value is not None}

    def part(self, rows: slice | NDArray[Any]) -> Answers:
        """What it says about some of the images."""
        return Answers.of(
            {name: value[rows] for name, value in self.arrays().items()}, self.seconds
        )


def join(parts: Sequence[Answers]) -> Answers:
    """Several answers after each other."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part.arrays() for part in parts]
    return Answers.of(
        {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]},
        sum(part.seconds for part in parts),
    )


def in_chunks(
    infer: Callable[[NDArray[np.uint8]], Answers], batch: NDArray[np.uint8], size: int
) -> Answers:
    """``infer`` on at most ``size`` images at a time (0: all at once), its answers joined."""
    if not len(batch):  # shapes are wanted all the same; runtimes differ on empty batches
        one = infer(np.zeros((1, *batch.shape[1:]), np.uint8))
        return one.part(slice(0))._replace(seconds=0.0)
    size = size or len(batch)
    return join([infer(batch[start : start + size]) for start in range(0, len(batch), size)])
