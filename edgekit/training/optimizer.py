"""Parameter groups, the learning rate's schedule, and the average of the weights."""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig


def create_optimizer(model: VQSA, config: TrainConfig) -> Optimizer:
    """An optimizer of everything that learns; weights decay, codewords, biases and norms do not."""
    decaying: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() > 1 and "codebook" not in name
            (decaying if is_matrix else free).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    # Fused: one pass over the weights instead of six, of which memory allows few per second.
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=True)
    # Fused SGD fails in a group of which some have no momentum yet: codewords that join later.
    joins_late = model.head.codebook is not None and config.quantizer_start > 0
    return SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=not (joins_late and config.codebook_update == "gradient"),
    )


def learning_rate(peak: float, step: int, steps: int, warmup: float) -> float:
    """Linear rise to ``peak``, then half a cosine down to 0 at step number ``steps``."""
    rise = round(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def shares_of_the_rest(steps: int, warmup: float) -> list[float]:
    """The part that each step has of the learning, in sums of rates, that is left before it."""
    rates = [learning_rate(1.0, step, steps, warmup) for step in range(steps)]
    rest = list(itertools.accumulate(reversed(rates)))[::-1]
    return [rate / left for rate, left in zip(rates, rest, strict=True)]


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def forget_rows(optimizer: Optimizer, parameter: Tensor, rows: Tensor) -> None:
    """Clear an optimizer's state of some rows, whose values were replaced."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value[rows] = 0


class AveragedWeights:
    """An exponential moving average of a model's weights, as a model of its own.

    The decay rises with the steps (Tarvainen and Valpola, 2017), which keeps the random start
    from lingering. What does not learn is shared with the model, not copied.
    """

    def __init__(self, model: VQSA, decay: float) -> None:
        self.decay = decay
        # deepcopy shares these tensors instead of copying them.
        fixed: list[Tensor] = [p for p in model.parameters() if not p.requires_grad]
        if not any(p.requires_grad for p in model.backbone.parameters()):
            fixed += model.backbone.buffers()
        self.model: VQSA = copy.deepcopy(model, {id(tensor): tensor for tensor in fixed})
        self.model.requires_grad_(False)
        self.model.eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Include the weights after step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            if mine is not theirs:
                mine.lerp_(theirs, 1 - decay)
        for buffer, source in zip(self.model.buffers(), model.buffers(), strict=True):
            if buffer is not source:
                buffer.copy_(source)
