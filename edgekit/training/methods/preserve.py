"""Feature preservation: a corrupted image keeps the feature that its clean one had at the start.

After the feature-preserving module of ViT2Hash (Gong, Wang, Lai, Pan and Yin, arXiv 2201.05541),
which reconstructs a pre-trained network's feature of the complete image from a corrupted one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from edgekit.model.vqsa import VQSA
from edgekit.training.methods.method import Method

_TINY = 1e-12  # a feature may be all zeros, behind a ReLU


class Preserve(Method):
    """Squared distance of a corrupted image's feature from a frozen teacher's of the clean image.

    Relative to the squared length of the teacher's feature, so that a weight means the same for
    every backbone. A batch holds pairs, clean before corrupted.
    """

    name = "preserve"

    def __init__(self, weight: float, model: VQSA) -> None:
        self._weight = weight
        self._quantize = model.config.quantize
        # No part of the model; a resumed run rebuilds it from the starting weights.
        self._teacher = copy.deepcopy(model.backbone).requires_grad_(False).eval()

    def loss(self, images: Tensor, features: Tensor) -> Tensor:
        """See `Method`."""
        with torch.no_grad():
            kept = self._teacher.features(images[::2], self._quantize).float().flatten(1)
        distance = (features[1::2].float().flatten(1) - kept).square().sum(dim=1)
        return self._weight * (distance / (kept.square().sum(dim=1) + _TINY)).mean()
