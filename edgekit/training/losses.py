"""The loss of a batch: cross-entropy, the codebook's two terms, and those of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.model.vqsa import VQSA, Output
from edgekit.training.methods.method import Method

# What `Losses.sums` has before the methods' terms.
SUMS = ("loss", "classification", "codebook", "commitment", "error")


class Losses(NamedTuple):
    """Means over a batch's images, except ``wrong``, which is a count."""

    total: Tensor
    classification: Tensor
    codebook: Tensor
    commitment: Tensor
    methods: tuple[Tensor, ...]  # each method's term, in their order
    wrong: Tensor
    features: Tensor  # [B, D] or [B, P, D], detached: what is looked up

    def sums(self, images: int) -> Tensor:
        """`SUMS`, the methods' terms and the number of ``images``, to be added up over batches."""
        means = (self.total, self.classification, self.codebook, self.commitment)
        row = [mean.detach().double() * images for mean in (*means, *self.methods)]
        row.insert(len(means), self.wrong.double())
        return torch.stack([*row, row[0].new_tensor(images)])


class Learner(nn.Module):
    """A model and its loss as one module, for data-parallel training to wrap."""

    def __init__(self, model: VQSA, label_smoothing: float, methods: Sequence[Method] = ()) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.methods = tuple(methods)

    def forward(self, inputs: Tensor, labels: Tensor, are_images: bool, quantizes: bool) -> Losses:
        """``inputs`` are images [B, 3, H, W] or features; ``labels`` [B].

        Without ``quantizes`` each feature stands in for its own codeword.
        """
        model = self.model
        features = model.backbone.features(inputs, model.config.quantize) if are_images else inputs
        output = model.head(features) if quantizes else without_codebook(model, features)
        logits = output.logits.float()
        classification = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        total = classification + output.codebook_loss + output.commitment_loss
        terms = tuple(method.loss(inputs, features) for method in self.methods)
        for term in terms:
            total = total + term
        return Losses(
            total,
            classification.detach(),
            output.codebook_loss.detach(),
            output.commitment_loss.detach(),
            tuple(term.detach() for term in terms),
            (logits.argmax(dim=1) != labels).sum(),
            features.detach(),
        )


def without_codebook(model: VQSA, features: Tensor) -> Output:
    """The head's output when every vector's codeword is the vector itself."""
    pooled = features.mean(dim=1) if features.dim() == 3 else features
    head, zero = model.head, features.new_zeros(())
    fused = pooled if head.codebook is None else head.combine(pooled, pooled)
    return Output(head.classifier(fused), None, None, zero, zero)
