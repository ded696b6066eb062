"""VQ-SA (Yang et al., CVPR 2023): a codebook lookup, then self-attention over two tokens.

A backbone's feature x is looked up in a learned codebook E; the codeword q and x are the two
tokens of a small self-attention, whose output is fused back to D values and classified.
Sizes in the comments: B images, D feature width, N codewords, P vectors per image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.model.backbones.base import Backbone
from edgekit.model.codebook import Codebook
from edgekit.model.config import VQSAConfig


class Output(NamedTuple):
    """What a forward pass returns."""

    logits: Tensor  # [B, classes]
    code: Tensor | None  # [B] pooled, [B, P] spatial: the index of each vector's codeword
    margin: Tensor | None  # same shape: best minus second-best lookup score
    codebook_loss: Tensor  # scalar: pulls codewords to features (0 for an EMA codebook)
    commitment_loss: Tensor  # scalar: pulls features to codewords, already weighted


class TokenAttention(nn.Module):
    """Self-attention over the tokens (q, x); tokens are rows, multiplied by weights on the right.

    The released code has tokens as columns (K t); F.linear on rows is the same product, runs
    faster, and is the form that post-training quantization handles correctly.
    """

    def __init__(self, width: int, scale: bool) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(width, width))
        self.query = nn.Parameter(torch.empty(width, width))
        self.value = nn.Parameter(torch.empty(width, width))
        self.scale = 1 / math.sqrt(2) if scale else 1.0
        for weight in (self.key, self.query, self.value):
            nn.init.kaiming_normal_(weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, 2, D] -> [B, 2, D]."""
        weights = (self.key, self.query, self.value)
        return self._attend(*(F.linear(tokens, weight) for weight in weights))

    def of_codes(self, codebook: Tensor, code: Tensor, feature: Tensor) -> Tensor:
        """`forward` of the tokens (codebook[code], feature), code [B], feature [B, D].

        Multiplies each codeword once, not each of its uses in a batch.
        """

        def product(weight: Tensor) -> Tensor:
            quantized = F.embedding(code, F.linear(codebook, weight))
            return torch.stack([quantized, F.linear(feature, weight)], dim=1)

        return self._attend(product(self.key), product(self.query), product(self.value))

    def _attend(self, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
        logits = query @ key.transpose(1, 2) * self.scale  # [B, asking token, answering token]
        return logits.softmax(dim=2) @ value


class VQSAHead(nn.Module):
    """Features to logits: look up, attend, fuse, classify (`VQSAConfig` says which of these)."""

    def __init__(self, width: int, classes: int, config: VQSAConfig) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.codebook = Codebook(width, config) if config.output != "none" else None
        attends = config.output in ("attention", "residual")
        self.attention = TokenAttention(width, config.logit_scale) if attends else None
        fuses = attends or config.output == "concat"
        self.fuse = nn.Linear(2 * width, width) if fuses else None
        self.classifier = nn.Linear(width, classes)
        if config.output == "residual":
            assert self.fuse is not None
            nn.init.zeros_(self.fuse.weight)
            nn.init.zeros_(self.fuse.bias)

    def forward(self, features: Tensor) -> Output:
        """Pooled [B, D] or spatial [B, P, D] features."""
        feature = features.mean(dim=1) if features.dim() == 3 else features
        if self.codebook is None:
            zero = feature.new_zeros(())
            return Output(self.classifier(feature), None, None, zero, zero)
        lookup = self.codebook(features)
        # Spatial: every position is quantized, then both maps are pooled into one token each.
        codeword = lookup.codeword.mean(dim=1) if features.dim() == 3 else lookup.codeword
        if self._repeats_codewords(features):
            assert self.attention is not None
            embeddings = self.codebook.embeddings
            if self.config.straight_through:
                embeddings = embeddings.detach()
            fused = self._fused(self.attention.of_codes(embeddings, lookup.code, feature), feature)
        else:
            fused = self.combine(codeword, feature)
        return Output(
            self.classifier(fused),
            lookup.code,
            lookup.margin,
            lookup.codebook_loss,
            lookup.commitment_loss,
        )

    def combine(self, codeword: Tensor, feature: Tensor) -> Tensor:
        """Combine two [B, D] tokens into the [B, D] feature to classify."""
        if self.config.output == "replace":
            return codeword
        if self.config.output == "add":
            return codeword + feature
        tokens = torch.stack([codeword, feature], dim=1)  # the quantized slot comes first
        if self.attention is not None:
            tokens = self.attention(tokens)
        return self._fused(tokens, feature)

    def _repeats_codewords(self, features: Tensor) -> bool:
        """Whether it is worth multiplying codewords instead of a training batch's tokens.

        A straight-through gradient reaches the features through the tokens alone.
        """
        return (
            self.training
            and self.attention is not None
            and self.codebook is not None
            and features.dim() == 2
            and not features.requires_grad
            and len(self.codebook.embeddings) < len(features)
        )

    def _fused(self, tokens: Tensor, feature: Tensor) -> Tensor:
        assert self.fuse is not None
        fused: Tensor = self.fuse(tokens.flatten(1))
        return feature + fused if self.config.output == "residual" else fused.relu()


class VQSA(nn.Module):
    """The whole classifier: images [B, 3, H, W], normalized, to `Output`."""

    def __init__(self, backbone: Backbone, classes: int, config: VQSAConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = VQSAHead(backbone.width(config.quantize), classes, config)

    def forward(self, images: Tensor) -> Output:
        """Run backbone and head."""
        output: Output = self.head(self.backbone.features(images, self.config.quantize))
        return output
