"""Folds a trained VQ-SA head into its deployable form; the algebra is exact.

With E the codewords, x the feature, q = E_n its nearest codeword, and the head's weights K, Q, V
and W = [W1 | W2] (the fuse layer's halves for its two input slots):

* K and Q only occur as M = K^T Q, and V only in products with W: P1 = W1 V, P2 = W2 V.
* A softmax over two logits is a sigmoid of their difference, so the weight of q is
  a1 = sigmoid((q - x) . M q) in the first slot and a2 = sigmoid((q - x) . M x) in the second.
* The fused feature is P1 x + P2 x + b + a1 (P1 q - P1 x) + a2 (P2 q - P2 x).
* q takes one of N values, so everything that depends on it alone is a table indexed by the code:
  key[n] = M q and base[n] = (P1 + P2) q + b. With 1 - sigmoid(z) = sigmoid(-z), the rest depends
  on x only through the residual r = x - q:

      fused = base[n] + sigmoid(r . key[n]) P1 r + sigmoid(r . key[n] + r . M r) P2 r

  r . M r is a quadratic form: only the symmetric part of M matters, and a triangle U holds it,
  with M's diagonal and twice its symmetric part above. So 2.5 D^2 numbers do the work of 5 D^2,
  and 8-bit products round the small residual, not the feature.
* Without tables, the product that projects x projects q as a second row: no N x 2D tables.
* Nearest by cosine is the argmax of x . E_n / |E_n|: normalizing x would scale all scores alike.

Spatial quantization pools P codewords into q, which then is not one of N values, so it is
projected, not looked up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.model.backbones.base import Backbone
from edgekit.model.codebook import best_two, normalize_rows
from edgekit.model.config import Quantize
from edgekit.model.vqsa import VQSA, VQSAHead

FOLDABLE = ("attention", "residual")
_ROWS = 1024  # of the codebook, folded at once


@dataclass(frozen=True)
class FoldReport:
    """What was folded, or why nothing was, in one line for the user."""

    folded: bool
    message: str


class FoldedOutput(NamedTuple):
    """What a folded model returns; the first three fields of `Output`."""

    logits: Tensor  # [B, classes]
    code: Tensor  # [B] pooled, [B, P] spatial, int64
    margin: Tensor  # same shape


class Lookup(nn.Module):
    """The nearest codeword as an argmax of products; exporters replace it with an operator."""

    codebook: Tensor

    def __init__(self, codebook: Tensor, metric: str) -> None:
        super().__init__()
        self.metric = metric  # "dot" on unit rows (cosine), or "l2"
        self.register_buffer("codebook", codebook)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[..., D] -> code [...], margin [...]."""
        scores = features @ self.codebook.T
        if self.metric == "l2":
            scores = scores - self.codebook.square().sum(dim=1) / 2
        return best_two(scores)


class FoldedHead(nn.Module):
    """The head of `VQSAHead` with ``output`` attention or residual, after `fold_head`.

    Buffers: ``norm`` [N, 1] restores the codewords' length. With tables, ``projection`` [3D, D]
    stacks U, P1 and P2, and ``table`` [N, 2D] holds key and base of every codeword; both tables
    are gathered by row. Without tables, ``projection`` stacks M, P1 and P2, and ``bias`` [D] is
    the fuse layer's.
    """

    projection: Tensor
    bias: Tensor
    norm: Tensor
    table: Tensor

    def __init__(self, head: VQSAHead, tables: bool) -> None:
        super().__init__()
        assert head.codebook is not None
        assert head.attention is not None
        assert head.fuse is not None
        self.width = head.width
        self.residual = head.config.output == "residual"
        self.tables = tables
        # The fold runs once, so float64 costs nothing.
        embeddings, bias = head.codebook.embeddings.detach(), head.fuse.bias.detach()
        attention, dtype = head.attention, head.fuse.weight.dtype
        key, query, value = (
            weight.detach().double() for weight in (attention.key, attention.query, attention.value)
        )
        first, second = head.fuse.weight.detach().double().chunk(2, dim=1)
        # Row i of the product F.linear(t, K) . F.linear(t', Q) is t^T (K^T Q) t'.
        pairing = attention.scale * key.T @ query
        first, second = first @ value, second @ value
        left = _triangle(pairing) if tables else pairing
        cosine = head.config.distance == "cosine"
        rows = embeddings.to(dtype, copy=True)
        norm = torch.ones(len(embeddings), dtype=dtype)
        table = torch.empty(len(embeddings), 2 * self.width if tables else 0, dtype=dtype)
        both = first + second
        # In blocks of rows: for 10,000 at once, six float64 results take a gigabyte.
        for start in range(0, len(embeddings), _ROWS):
            block = slice(start, start + _ROWS)
            codewords = embeddings[block].double()
            if cosine:
                rows[block] = normalize_rows(codewords)
                norm[block] = codewords.norm(dim=1)
            if tables:
                table[block, : self.width] = codewords @ pairing.T
                table[block, self.width :] = codewords @ both.T + bias.double()
        self.lookup = Lookup(rows, "dot" if cosine else "l2")
        self.register_buffer("norm", norm.unsqueeze(1))
        self.register_buffer("projection", torch.cat([left, first, second]).to(dtype))
        if tables:
            self.register_buffer("table", table)
        else:
            self.register_buffer("bias", bias.clone())
        self.classifier = head.classifier

    def forward(self, features: Tensor) -> FoldedOutput:
        """[B, D] pooled or [B, P, D] spatial features."""
        code, margin = self.lookup(features)
        codeword = F.embedding(code, self.lookup.codebook) * F.embedding(code, self.norm)
        if features.dim() == 3:
            features, codeword = features.mean(dim=1), codeword.mean(dim=1)
        fused = self.combine(features, codeword, code)
        return FoldedOutput(self.classifier(fused), code, margin)

    def combine(self, x: Tensor, q: Tensor, code: Tensor) -> Tensor:
        """The feature to classify, [B, D]; with tables, ``code`` is [B]."""
        if self.tables:
            fused = self._by_tables(x - q, F.embedding(code, self.table))
        else:
            fused = self._by_projection(x, q)
        return x + fused if self.residual else fused.relu()

    def _by_tables(self, rest: Tensor, row: Tensor) -> Tensor:
        ur, p1r, p2r = F.linear(rest, self.projection).chunk(3, dim=-1)
        key, base = row.chunk(2, dim=-1)
        logit1 = (rest * key).sum(dim=-1, keepdim=True)
        logit2 = logit1 + (rest * ur).sum(dim=-1, keepdim=True)
        return base + logit1.sigmoid() * p1r + logit2.sigmoid() * p2r

    def _by_projection(self, x: Tensor, q: Tensor) -> Tensor:
        of_x, of_q = F.linear(torch.stack([x, q]), self.projection).unbind()
        mx, p1x, p2x = of_x.chunk(3, dim=-1)
        mq, p1q, p2q = of_q.chunk(3, dim=-1)
        a1 = ((q - x) * mq).sum(dim=-1, keepdim=True).sigmoid()
        a2 = ((q - x) * mx).sum(dim=-1, keepdim=True).sigmoid()
        return p1x + p2x + self.bias + a1 * (p1q - p1x) + a2 * (p2q - p2x)


def _triangle(form: Tensor) -> Tensor:
    """The upper triangular U with the same quadratic form: r . U r = r . form r for every r."""
    return (form + form.T).triu(diagonal=1) + form.diagonal().diag()


class FoldedVQSA(nn.Module):
    """Images [B, 3, H, W] to `FoldedOutput`: the trained backbone and a folded head."""

    def __init__(self, backbone: Backbone, head: FoldedHead, quantize: Quantize) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.quantize: Quantize = quantize

    def forward(self, images: Tensor) -> FoldedOutput:
        """Run backbone and head."""
        output: FoldedOutput = self.head(self.backbone.features(images, self.quantize))
        return output


def fold_head(head: VQSAHead, *, tables: bool = True) -> FoldedHead:
    """The folded form of a head whose output is one of `FOLDABLE`.

    ``tables`` stores N x 2D values to save the projection of the codeword; spatial quantization
    cannot use them.
    """
    return FoldedHead(head, tables and head.config.quantize == "pooled")


def fold(model: VQSA, *, tables: bool = True) -> tuple[FoldedVQSA | None, FoldReport]:
    """The folded model, or None and the reason why it cannot be folded."""
    config = model.config
    if config.output not in FOLDABLE:
        return None, FoldReport(
            False, f"output form '{config.output}' has no attention to fold: left as it is"
        )
    head = fold_head(model.head, tables=tables).eval()
    width = head.width
    kind = "tables indexed by the code" if head.tables else "projected codewords"
    weights = "2.5" if head.tables else "3"
    message = (
        f"folded: 5 x {width}^2 head weights became {weights} x {width}^2, with {kind}"
        f" ({_megabytes(model.head)} -> {_megabytes(head)} MB in float32)"
    )
    return FoldedVQSA(model.backbone, head, config.quantize), FoldReport(True, message)


def _megabytes(module: nn.Module) -> str:
    """The stored size at 4 bytes per value, without usage counters."""
    values = sum(math.prod(tensor.shape) for tensor in module.state_dict().values())
    return f"{values * 4 / 1e6:.1f}"
