"""Quantize and dequantize at once, with gradients: what a Q/DQ pair does, as torch sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _FakeQuantize(torch.autograd.Function):
    """(clamp(round(x / s) + z) - z) * s.

    Gradients: rounding is taken for the identity (straight-through), so x gets its gradient where
    it is not clipped; the scale gets d/ds of the same expression, which is the rounding error
    inside the range and the clipped level outside (Esser et al., "Learned step size
    quantization", 2020).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        """``low`` and ``high`` are the levels less the zero-point; ``scale`` broadcasts to x."""
        ctx.save_for_backward(x, scale)
        ctx.range = (low, high)
        # A true division and round-half-to-even, as ONNX defines QuantizeLinear.
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of x and scale."""
        x, scale = ctx.saved_tensors
        low, high = ctx.range
        (grad,) = grads
        level = x / scale
        rounded = level.round()
        clipped = rounded.clamp(low, high)
        outside = rounded.ne_(clipped).bool()
        is_clipped = bool(outside.any())
        to_x = grad.masked_fill(outside, 0) if is_clipped else grad
        to_scale = None
        if ctx.needs_input_grad[1]:
            if is_clipped:
                level.masked_fill_(outside, 0)
            to_scale = clipped.sub_(level).mul_(grad).sum_to_size(scale.shape)
        return to_x if ctx.needs_input_grad[0] else None, to_scale, None, None


def fake_quantize(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """``x`` as it comes out of a Q/DQ pair of this scale.

    ``low`` and ``high`` are the range of levels less the zero-point; ``scale`` is a scalar, or
    has as many dimensions as ``x`` and size 1 but along the channels.
    """
    found: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]
        x, scale, float(low), float(high)
    )
    return found
