"""The learned codebook: nearest-codeword lookup, its losses, its updates and its health."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.model.config import VQSAConfig


class NearestCodewords(NamedTuple):
    """The codewords of features; shapes follow the features' leading dimensions."""

    codeword: Tensor  # [..., D], straight-through in training
    code: Tensor  # [...] int64
    margin: Tensor  # [...] best minus second-best score; +inf when there is one codeword
    codebook_loss: Tensor
    commitment_loss: Tensor


def normalize_rows(codebook: Tensor) -> Tensor:
    """Rows at unit length; a zero row stays zero, so its score is 0 and never NaN.

    Scaling a row by its largest entry first keeps the norm of tiny (denormal) and huge rows
    finite and non-zero, where F.normalize would flush or overflow.
    """
    peak = codebook.abs().amax(dim=-1, keepdim=True)
    scaled = codebook / torch.where(peak > 0, peak, torch.ones_like(peak))
    norm = scaled.norm(dim=-1, keepdim=True)
    return scaled / torch.where(norm > 0, norm, torch.ones_like(norm))


def lookup_scores(features: Tensor, codebook: Tensor, distance: str) -> Tensor:
    """[..., D] x [N, D] -> [..., N]: scores, of which the largest marks the nearest codeword.

    cosine: x · e/|e| (normalizing x as well would scale every score alike and change nothing);
    l2: x · e - |e|²/2, which is (|x|² - |x - e|²)/2.
    """
    if distance == "cosine":
        return features @ normalize_rows(codebook).T
    return features @ codebook.T - codebook.square().sum(dim=-1) / 2


def best_two(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The index of the best score, and its margin over the second best.

    Ties go to the lowest index. Equal *rows* need not have equal scores here, because a matrix
    product may round its last columns differently; the native lookup does not have this problem.
    """
    code = scores.argmax(dim=-1)  # the first of equal maxima
    if scores.shape[-1] == 1:
        return code, torch.full_like(code, torch.inf, dtype=scores.dtype)
    top = scores.topk(2, dim=-1).values
    return code, top[..., 0] - top[..., 1]


class Codebook(nn.Module):
    """N codewords of D values, [N, D], un-normalized; the cosine lookup normalizes a copy."""

    embeddings: Tensor
    usage: Tensor
    ema_count: Tensor
    ema_sum: Tensor

    def __init__(self, width: int, config: VQSAConfig) -> None:
        super().__init__()
        self.config = config
        size = config.codebook_size
        start = torch.empty(size, width).uniform_(0, 3)  # the released code's initialization
        if config.update == "ema":
            self.register_buffer("embeddings", start)
            self.register_buffer("ema_count", torch.ones(size))
            self.register_buffer("ema_sum", start.clone())
        else:
            self.embeddings = nn.Parameter(start)
        # How often each codeword was chosen in training since the last `reset_usage`. This is a
        # measurement, not a weight, so checkpoints do not store it.
        self.register_buffer("usage", torch.zeros(size, dtype=torch.long), persistent=False)

    def forward(self, features: Tensor) -> NearestCodewords:
        """Look up [..., D] features."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float() if features.dtype != torch.float64 else features
            with torch.no_grad():
                scores = lookup_scores(features, self.embeddings, self.config.distance)
                code, margin = best_two(scores)
            if self.training:
                self.count(code)
                if self.config.update == "ema":
                    self._ema_update(features.detach().flatten(0, -2), code.flatten())
            codeword = F.embedding(code, self.embeddings)
            commitment = self.config.commitment * F.mse_loss(features, codeword.detach())
            if self.config.update == "ema":
                pull = commitment.new_zeros(())
            else:
                pull = F.mse_loss(codeword, features.detach())
            if self.training and self.config.straight_through:
                # Forward: the codeword; backward: the identity, as if no lookup had happened.
                codeword = features + (codeword - features).detach()
        return NearestCodewords(codeword, code, margin, pull, commitment)

    def count(self, code: Tensor) -> None:
        """Add the codes of a batch to the usage statistics."""
        self.usage += torch.bincount(code.flatten(), minlength=self.usage.numel())

    def reset_usage(self) -> None:
        """Start counting anew."""
        self.usage.zero_()

    def perplexity(self) -> float:
        """exp(entropy) of the usage: N if all codewords are used equally, 1 at collapse."""
        return perplexity(self.usage)

    @torch.no_grad()
    def initialize(self, features: Tensor, iterations: int = 10, seed: int = 0) -> None:
        """Place the codewords by k-means on [M, D] features, M >= 1."""
        generator = torch.Generator().manual_seed(seed)
        size = self.embeddings.shape[0]
        centers = features[_draw(features, size, generator)].to(self.embeddings.dtype)
        for _ in range(iterations):
            parts = features.split(4096)  # bounds the [M, N] score matrix
            code = torch.cat([self._nearest(part, centers) for part in parts])
            total = torch.zeros_like(centers).index_add_(0, code, features.to(centers.dtype))
            count = torch.bincount(code, minlength=size)
            replacements = features[_draw(features, size, generator)].to(centers.dtype)
            filled = (count > 0).unsqueeze(1)
            centers = torch.where(filled, total / count.clamp(min=1).unsqueeze(1), replacements)
        self._place(torch.arange(size), centers)

    def _nearest(self, features: Tensor, centers: Tensor) -> Tensor:
        scores = lookup_scores(features.to(centers.dtype), centers, self.config.distance)
        return scores.argmax(dim=-1)

    @torch.no_grad()
    def reset_dead(self, features: Tensor, minimum: int = 1, seed: int = 0) -> int:
        """Move codewords used fewer than ``minimum`` times to random features; return how many."""
        dead = (self.usage < minimum).nonzero().flatten()
        if dead.numel():
            generator = torch.Generator().manual_seed(seed)
            self._place(dead, features[_draw(features, dead.numel(), generator)])
        return dead.numel()

    def _place(self, rows: Tensor, values: Tensor) -> None:
        self.embeddings[rows] = values.to(self.embeddings.dtype)
        if self.config.update == "ema":
            self.ema_count[rows] = 1
            self.ema_sum[rows] = self.embeddings[rows]

    @torch.no_grad()
    def _ema_update(self, features: Tensor, code: Tensor) -> None:
        """Codeword = running sum of its features / running count (van den Oord et al., 2017)."""
        decay = self.config.ema_decay
        count = torch.bincount(code, minlength=self.ema_count.numel()).to(self.ema_count)
        total = torch.zeros_like(self.ema_sum).index_add_(0, code, features.to(self.ema_sum))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count)
            torch.distributed.all_reduce(total)
        self.ema_count.lerp_(count, 1 - decay)
        self.ema_sum.lerp_(total, 1 - decay)
        # An unused codeword keeps its place: its sum and count shrink at the same rate, until the
        # count has almost vanished and the quotient would be noise.
        alive = (self.ema_count > 1e-6).unsqueeze(1)
        mean = self.ema_sum / self.ema_count.clamp(min=1e-6).unsqueeze(1)
        self.embeddings.copy_(torch.where(alive, mean, self.embeddings))


def perplexity(usage: Tensor) -> float:
    """exp(entropy) of usage counts [N]; 0.0 if nothing was counted."""
    total = usage.sum()
    if total == 0:
        return 0.0
    share = usage.double() / total
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def _draw(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random row indices, distinct as long as there are enough rows."""
    rows = features.shape[0]
    order = torch.randperm(rows, generator=generator)
    if count <= rows:
        return order[:count]
    return torch.cat([order, torch.randint(rows, (count - rows,), generator=generator)])
