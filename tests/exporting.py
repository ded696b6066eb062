"""Exports of tests, without what PyTorch's exporter does anew each time."""

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry


def remember_operators() -> None:
    """Its table of operators takes seconds to make, and is always the same."""
    if not hasattr(ONNXRegistry.from_torchlib, "cache_info"):
        remembered = functools.cache(ONNXRegistry.from_torchlib)
        ONNXRegistry.from_torchlib = staticmethod(remembered)  # type: ignore[method-assign]
