"""A model's answers, whichever runtime computes them: of one inference, or of several joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Answers(NamedTuple):
    """A model's answers to B images."""

    logits: NDArray[np.float32]
    """[B, classes]"""
    code: NDArray[np.int64] | None
    """[B], or [B, P] where every position is quantized; None without a codebook."""
    margin: NDArray[np.float32] | None
    """Best minus second-best lookup score, shaped like ``code``; None where it was left out."""
    seconds: float = 0.0
    """Time in the runtime, without waiting for a free slot; 0 if not measured."""

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[Any]], seconds: float = 0.0) -> Answers:
        """From a graph's outputs by name; a foreign graph's first output counts as logits."""
        logits = outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))
        return cls(logits, outputs.get("code"), outputs.get("margin"), seconds)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are present, by name; `of` is the inverse."""
        arrays = {"logits": self.logits, "code": self.code, "margin": self.margin}
        return {name: value for name, value in arrays.items() if value is not None}

    def part(self, rows: slice | NDArray[Any]) -> Answers:
        """The answers for some of the images."""
        return Answers.of(
            {name: value[rows] for name, value in self.arrays().items()}, self.seconds
        )


def join(parts: Sequence[Answers]) -> Answers:
    """Concatenate answers."""
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
    if not len(batch):  # the shapes still matter; runtimes differ on empty batches
        one = infer(np.zeros((1, *batch.shape[1:]), np.uint8))
        return one.part(slice(0))._replace(seconds=0.0)
    size = size or len(batch)
    return join([infer(batch[start : start + size]) for start in range(0, len(batch), size)])
