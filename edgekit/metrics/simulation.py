"""Synthetic paired sweeps whose true delta is known exactly.

They check that the intervals cover and that early stopping keeps its error rate, and they plan
how many images a tolerance needs.

Both models see a score for each image and cell, and are wrong where it is below zero. The
reference's score is normal, shared in part by an image's cells (a hard image is hard in all of
them). The candidate's score adds a shift for each corruption and noise, also partly shared,
which is larger for a few fragile images. So the cells of an image are correlated, flips come
in clusters, and the two models' errors are known normal probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class PairedModel:
    """A pair of models: ``shift`` moves the candidate's errors, ``noise`` makes the two disagree.

    ``shift`` holds one value a corruption, in standard deviations of the reference's score;
    with all zeros the candidate is as good as the reference up to the noise's own small cost.
    """

    shift: tuple[float, ...]
    noise: float
    severities: int = 5
    image_share: float = 0.5  # of the reference score's variance: common to an image's cells
    corruption_share: float = 0.15  # of the same: common to an image's severities of a corruption
    noise_image_share: float = 0.3  # of the noise's variance: common to an image's cells
    fragile_share: float = 0.05  # of the images
    fragile_factor: float = 4.0  # their noise, relative to the others'

    def offsets(self) -> npt.NDArray[np.float64]:
        """Mean score of each cell [C, S]: errors from about 5% to 88%, rising with severity."""
        severity = np.linspace(1.2, -0.8, self.severities) if self.severities > 1 else np.zeros(1)
        kind = np.linspace(-0.4, 0.4, len(self.shift)) if len(self.shift) > 1 else np.zeros(1)
        return np.asarray(kind[:, None] + severity[None, :])

    def true_deltas(self) -> npt.NDArray[np.float64]:
        """Exact error of the candidate minus that of the reference, a fraction per cell [C, S]."""
        mean = self.offsets()
        shifted = mean - np.asarray(self.shift)[:, None]
        usual = _below_zero(shifted / math.sqrt(1 + self.noise**2))
        fragile_noise = self.noise * self.fragile_factor
        fragile = _below_zero(shifted / math.sqrt(1 + fragile_noise**2))
        candidate = (1 - self.fragile_share) * usual + self.fragile_share * fragile
        return np.asarray(candidate - _below_zero(mean))

    def draw(self, rng: np.random.Generator, images: int) -> npt.NDArray[np.int8]:
        """Candidate error minus reference error in {-1, 0, 1}: int8 [images, C, S]."""
        corruptions = len(self.shift)

        def normal(*shape: int) -> npt.NDArray[np.float32]:
            return rng.standard_normal(shape, dtype=np.float32)

        own = 1 - self.image_share - self.corruption_share
        reference = normal(images, corruptions, self.severities) * np.float32(math.sqrt(own))
        reference += normal(images, 1, 1) * np.float32(math.sqrt(self.image_share))
        reference += normal(images, corruptions, 1) * np.float32(math.sqrt(self.corruption_share))
        reference += self.offsets().astype(np.float32)
        noise = normal(images, corruptions, self.severities)
        noise *= np.float32(math.sqrt(1 - self.noise_image_share))
        noise += normal(images, 1, 1) * np.float32(math.sqrt(self.noise_image_share))
        fragile = rng.random((images, 1, 1)) < self.fragile_share
        noise *= np.where(fragile, self.noise * self.fragile_factor, self.noise).astype(np.float32)
        candidate = reference + noise - np.asarray(self.shift, np.float32)[:, None]
        return (candidate < 0).astype(np.int8) - (reference < 0).astype(np.int8)


def _below_zero(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P(z < 0) for a normal z of unit variance and the given means."""
    return np.vectorize(lambda m: 0.5 * math.erfc(m / math.sqrt(2)))(mean)  # type: ignore[no-any-return]
