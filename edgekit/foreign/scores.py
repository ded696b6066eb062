"""What a foreign network's output says: which output, of which classes, and on what scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest
from edgekit.foreign.tensors import Tensor

_LEAST_PROBABILITY = 1e-7  # quantized outputs have exact zeros
_SUM = 0.02  # how far from 1 quantized probabilities may add up


@dataclass(frozen=True)
class Scores:
    """The output that holds one score a class."""

    tensor: Tensor
    columns: int  # as the file has them
    background: bool  # class 0 is "none of these", and is left out

    @property
    def classes(self) -> int:
        """How many of them are classes of the data."""
        return self.columns - self.background

    def flat(self, values: NDArray[np.generic], source: str) -> NDArray[np.float32]:
        """[B, classes], in real numbers; trailing axes of one are dropped."""
        scores = values.reshape(len(values), -1)
        if scores.shape[1] != self.columns:
            raise UsageError(
                f"{source}: output {self.tensor.describe()} came as {list(values.shape)}: it is "
                "not one score a class"
            )
        real = scores.astype(np.float32)
        if self.tensor.scale is not None:
            real = (real - self.tensor.zero_point) * np.float32(self.tensor.scale)
        return real[:, 1:] if self.background else real


def choose_output(
    outputs: Sequence[Tensor], name: str | None, source: str, *, background: bool
) -> Scores:
    """The output named ``name``, or the only one that can be one score a class."""
    listed = ", ".join(output.describe() for output in outputs)
    if name is not None:
        chosen = [output for output in outputs if output.name == name]
        if not chosen:
            hint = nearest(name, [output.name for output in outputs])
            raise UsageError(f"{source} has no output '{name}'{hint}")
    else:
        chosen = [output for output in outputs if _columns(output) is not None]
        if len(chosen) > 1:
            raise UsageError(
                f"{source} has several outputs, choose one with --output-name: {listed}"
            )
    columns = _columns(chosen[0]) if chosen else None
    if columns is None:
        raise UsageError(f"{source} is no classifier, its outputs are {listed}")
    if columns - background < 2:
        raise UsageError(f"{source} has fewer than two classes: its outputs are {listed}")
    return Scores(chosen[0], columns, background)


def _columns(output: Tensor) -> int | None:
    """The number of scores an image, if that is what the output holds."""
    shape = output.shape
    if len(shape) < 2 or (shape[1] is None and len(shape) == 2):
        return None
    sides = [side for side in shape[1:] if side != 1]
    return sides[0] if len(sides) == 1 and output.dtype.kind in "fiu" else None


def are_probabilities(scores: NDArray[np.float32]) -> bool:
    """Whether these rows are probabilities rather than logits; a background may be missing."""
    sums = scores.sum(axis=1)
    return bool((scores >= 0).all() and (sums <= 1 + _SUM).all() and sums.max() > 1 - _SUM)


def as_logits(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits that give these probabilities again, up to their sum."""
    return np.log(np.maximum(probabilities, np.float32(_LEAST_PROBABILITY)))
