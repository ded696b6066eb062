"""What the loading workers do for the trainer: decode, augment, fit to size, corrupt."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.base import Dataset
from edgekit.data.corruptions import corrupt
from edgekit.data.decode import BadImage
from edgekit.data.loading import rng_for
from edgekit.data.transforms import Preprocessing
from edgekit.training.config import Augment
from edgekit.training.corruption_schedule import Corruption

_RATIO = 4 / 3  # most elongated crop
_SMALLEST = 0.25  # smallest crop's share of the image


@dataclass(frozen=True)
class View:
    """One image of the dataset, and how to corrupt and augment it."""

    index: int
    corruptions: tuple[Corruption, ...]
    noise_seed: int = 0
    augment_epoch: int = -1  # -1 does not augment


@dataclass(frozen=True, eq=False)
class LoadedViews:
    """An image's views at network size, uint8 [views, height, width, 3] RGB."""

    index: int
    label: int
    images: NDArray[np.uint8]


@dataclass(frozen=True)
class Unreadable:
    """The result for an image that cannot be read: its batch shrinks, and no other image moves.

    (A raised `BadImage` would have no place in the order of results.)
    """

    message: str


@dataclass(frozen=True)
class ViewLoader:
    """The loading function: turns a `View` into pixels."""

    preprocessing: Preprocessing
    augment: Augment = "none"
    seed: int = 0

    def __call__(self, dataset: Dataset, view: View) -> LoadedViews | Unreadable:
        """Compute the views of one image."""
        try:
            image = dataset.image(view.index)
        except BadImage as error:
            return Unreadable(str(error))
        key = dataset.key(view.index)
        if self.augment != "none" and view.augment_epoch >= 0:
            fitted = self._augmented(image, view.augment_epoch, key)
        else:
            fitted = self.preprocessing.fit(image)
        images = [
            corrupt(fitted, name, severity, image_id=key, seed=view.noise_seed) if name else fitted
            for name, severity in view.corruptions
        ]
        return LoadedViews(view.index, dataset.label(view.index), np.stack(images))

    def _augmented(self, image: NDArray[np.uint8], epoch: int, key: str) -> NDArray[np.uint8]:
        """A random part of the image (for "crop"), mirrored half of the time."""
        raw = rng_for(self.seed, epoch, f"augment\n{key}").bit_generator.random_raw(5)
        share, ratio, down, right, flip = (int(bits) / 2**64 for bits in raw)
        preprocessing = self.preprocessing
        if self.augment == "crop":
            area = image.shape[0] * image.shape[1] * (_SMALLEST + (1 - _SMALLEST) * share)
            shape = math.exp((2 * ratio - 1) * math.log(_RATIO))
            height = max(1, min(image.shape[0], round(math.sqrt(area * shape))))
            width = max(1, min(image.shape[1], round(math.sqrt(area / shape))))
            top = int(down * (image.shape[0] - height + 1))
            left = int(right * (image.shape[1] - width + 1))
            image = np.ascontiguousarray(image[top : top + height, left : left + width])
            preprocessing = dataclasses.replace(preprocessing, resize="squash", crop_ratio=1.0)
        fitted = preprocessing.fit(image)
        return np.ascontiguousarray(fitted[:, ::-1]) if flip < 0.5 else fitted
