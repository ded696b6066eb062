"""The ONNX graph of a torch module, as PyTorch's exporter writes it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import onnx
import torch
from torch import Tensor, nn

from edgekit.core.errors import EdgekitError


def onnx_graph(
    module: nn.Module,
    images: Tensor,
    outputs: Sequence[str],
    opset: int,
    *,
    any_number: bool = False,
) -> onnx.ModelProto:
    """What ``module`` in eval mode computes from ``images``, or from ``any_number`` of them."""
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                (images,),
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=list(outputs),
                dynamic_shapes=({0: "batch"},) if any_number else None,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise EdgekitError(f"PyTorch cannot export this model: {reason}") from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages, which are for its developers; errors still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()) as printed:
            warnings.simplefilter("ignore")
            with redirect_stderr(printed):
                yield
    finally:
        logging.disable(before)
