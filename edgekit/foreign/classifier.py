"""A foreign classifier as a side of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.core.threads import in_order
from edgekit.data.transforms import Preprocessing
from edgekit.foreign.execution import Execution
from edgekit.foreign.pixels import InputForm
from edgekit.foreign.scores import Scores, are_probabilities, as_logits
from edgekit.foreign.tensors import Engine
from edgekit.runtime.answers import Answers

_CHUNK = 8  # images an inference, where the file leaves the choice


@dataclass(frozen=True, eq=False)
class ForeignClassifier:
    """Anybody's network: its engine, what it reads and what its output means."""

    name: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    engine: Engine
    form: InputForm
    scores: Scores
    source: str = ""  # nobody knows what it was made from
    training: str = "seen=unknown"
    opener: Callable[[], ForeignClassifier] | None = None  # opens a copy in another process

    @property
    def execution(self) -> Execution:
        """The runtime and device that really compute."""
        return self.engine.execution

    @property
    def key(self) -> str:
        """A hash of all that decides its answers."""
        told = self.preprocessing.fingerprint()
        output = f"{self.scores.tensor.name} {self.scores.background} {self.probabilities}"
        return f"{self.engine.key} {told} {self.form} {output}"

    @cached_property
    def probabilities(self) -> bool:
        """Whether it answers with probabilities, seen on a few made-up images."""
        noise = np.random.default_rng(0).integers(
            0, 256, (4, *self.preprocessing.size, 3), dtype=np.uint8
        )
        return are_probabilities(self._scores(noise))

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Images [B, height, width, 3], also of another size than its own: they are resized."""
        scores = self._scores(self._fitted(images))
        if not np.isfinite(scores).all():
            raise EdgekitError(f"{self.name}: its output holds values that are no numbers")
        return Answers(as_logits(scores) if self.probabilities else scores, None, None)

    def describe(self) -> str:
        """What runs it and how images reach it, in a line."""
        return f"{self.name}: {self.execution.describe()}; {self.preparation()}"

    def preparation(self) -> str:
        """How images reach it, in a line."""
        height, width = self.preprocessing.size
        told = self.preprocessing
        mean, std = (
            "/".join(f"{value:.4g}" for value in values) for values in (told.mean, told.std)
        )
        return (
            f"{height} x {width} px, {told.resize}, crop "
            f"{told.crop_ratio:g}, {told.interpolation}, {told.channel_order}, mean {mean}, std "
            f"{std}; {self.form.describe()}; {self.scores.classes} classes, "
            f"{'probabilities' if self.probabilities else 'logits'}"
        )

    def _fitted(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if images.shape[1:3] == self.preprocessing.size:
            return images
        # The crop was made when the images were: now they are only brought to another size.
        whole = dataclasses.replace(self.preprocessing, resize="squash", crop_ratio=1.0)
        return np.stack([whole.fit(image) for image in images])

    def _scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = self.engine.input.shape[0] or _CHUNK
        pieces = [images[start : start + size] for start in range(0, len(images), size)]
        what = f"{self.name}: an inference"
        found = in_order(self._infer, pieces, self.engine.parallel, what)
        return np.concatenate(list(found))

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        fixed = self.engine.input.shape[0]
        count = len(images)
        if fixed and count < fixed:  # fill up: the file takes no other number
            images = np.concatenate([images, np.repeat(images[-1:], fixed - count, axis=0)])
        tensor = self.form.tensor(self.preprocessing.normalize(images))
        values = self.engine.run(tensor, self.scores.tensor.name)
        return self.scores.flat(values, self.name)[:count]
