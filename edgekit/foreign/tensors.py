"""What a classifier's input and outputs are, as its own file states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.foreign.execution import Execution

Shape = tuple[int | None, ...]  # None: open
Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class Tensor:
    """An input or an output. ``scale`` is None where it holds no quantized values."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    scale: float | None = None
    zero_point: int = 0

    def describe(self) -> str:
        """Its name, type and shape, for one line."""
        sides = " x ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name} ({self.dtype} {sides or 'scalar'})"


class Engine(Protocol):
    """A file that a runtime has loaded."""

    @property
    def input(self) -> Tensor:
        """Its only input, images."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """All that it returns."""

    @property
    def execution(self) -> Execution:
        """The runtime and the device that really compute."""

    @property
    def key(self) -> str:
        """A hash of all that decides its answers."""

    @property
    def parallel(self) -> int:
        """How many inferences may run at a time."""

    def run(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        """The output of that name for an input tensor."""
