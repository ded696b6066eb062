"""What fine-tuning minimizes: the task, and the float model's answers, codes and features."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.network import NetworkOutput


class Losses(NamedTuple):
    """Means over a batch's views, not yet weighted, except ``total`` and the two counts."""

    total: Tensor
    task: Tensor
    distill: Tensor
    code: Tensor
    feature: Tensor
    wrong: Tensor  # views whose class is wrong
    flipped: Tensor  # features whose codeword is not the float model's


def losses(
    ours: NetworkOutput, original: NetworkOutput, labels: Tensor, config: FinetuneConfig
) -> Losses:
    """The losses of the quantized model's answers against the float model's and labels [B]."""
    task = F.cross_entropy(ours.logits, labels)
    distill = divergence(original.logits, ours.logits)
    code = feature = flipped = ours.logits.new_zeros(())
    if ours.scores is not None and original.scores is not None:
        assert ours.features is not None
        assert original.features is not None
        # The float model's length for both: one scale for how near a codeword is.
        length = original.features.norm(dim=1, keepdim=True).clamp(min=1e-12)
        theirs, mine = original.scores / length, ours.scores / length
        code = divergence(theirs / config.code_temperature, mine / config.code_temperature)
        feature = ((ours.features - original.features) / length).square().sum(dim=1).mean()
        flipped = (ours.scores.argmax(dim=1) != original.scores.argmax(dim=1)).sum()
    total = (
        config.task_weight * task
        + config.distill_weight * distill
        + config.code_weight * code
        + config.feature_weight * feature
    )
    wrong = (ours.logits.argmax(dim=1) != labels).sum()
    return Losses(
        total, task.detach(), distill.detach(), code.detach(), feature.detach(), wrong, flipped
    )


def divergence(target_scores: Tensor, scores: Tensor) -> Tensor:
    """The mean over rows of KL(softmax(target_scores) || softmax(scores)), in nats.

    Both are [rows, choices]. It is the cross-entropy with a soft target minus the target's own
    entropy, so 0 is the best.
    """
    target = target_scores.log_softmax(dim=1)
    per_row: Tensor = (target.exp() * (target - scores.log_softmax(dim=1))).sum(dim=1)
    return per_row.mean()


def finite(value: Tensor) -> bool:
    """Whether a loss is neither NaN nor infinite."""
    return bool(torch.isfinite(value))
