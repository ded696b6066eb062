"""Quantize and dequantize in one step, with gradients: a Q/DQ pair in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _FakeQuantize(torch.autograd.Function):
    """(clamp(round(x / s) + z) - z) * s.

    Gradients: rounding counts as the identity (straight-through), so x gets its gradient wherever
    it is not clipped; the scale gets d/ds of the same expression, which is the rounding error
    inside the range and the clipped level outside it (Esser et al., "Learned step size
    quantization", 2020).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        """``low`` and ``high`` are levels minus the zero-point; ``scale`` broadcasts to x."""
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
    """``x`` as it comes out of a Q/DQ pair with this scale.

    ``low`` and ``high`` are the range of levels minus the zero-point; ``scale`` is a scalar, or
    has as many dimensions as ``x``, all of size 1 except the channels.
    """
    result: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]
        x, scale, float(low), float(high)
    )
    return result
