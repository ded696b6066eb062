"""The options of a VQ-SA head, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.core.errors import UsageError

Quantize = Literal["pooled", "spatial"]
Distance = Literal["cosine", "l2"]
OutputForm = Literal["none", "replace", "add", "concat", "attention", "residual"]
CodebookUpdate = Literal["gradient", "ema"]


@dataclass(frozen=True)
class VQSAConfig:
    """The options of a VQ-SA head; the defaults fit the authors' released checkpoint.

    ``output`` is the paper's ablation: *none* (the plain classifier), *replace*, *add*,
    *concat*, *attention* (VQ-SA itself), and *residual*: the feature plus a correction that
    starts at zero, so training from scratch starts as the plain classifier.
    """

    codebook_size: int = 1000
    quantize: Quantize = "pooled"
    distance: Distance = "cosine"
    output: OutputForm = "attention"
    # The released code divides the attention logits by sqrt(2) in training but not in
    # evaluation; True divides in both, False (as in the released evaluation) in neither.
    logit_scale: bool = False
    straight_through: bool = True
    commitment: float = 0.25
    update: CodebookUpdate = "gradient"
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        """Refuse values with which no network can be built."""
        if not 1 <= self.codebook_size <= 1 << 24:
            raise UsageError(f"codebook_size must be 1 to {1 << 24}, not {self.codebook_size}")
        if self.commitment < 0:
            raise UsageError(f"commitment must not be negative, not {self.commitment}")
        if not 0 < self.ema_decay < 1:
            raise UsageError(f"ema_decay must lie between 0 and 1, not {self.ema_decay}")
