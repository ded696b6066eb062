"""Post-training INT8 calibration with NNCF, on the portable ONNX graph.

One calibration serves every runtime that adds in 32 bits; `edgekit.quantize.dialects` turns its
result into what each wants.
"""

from __future__ import annotations

import contextlib
import io
import logging
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.errors import EdgekitError
from edgekit.quantize.dialects import Dialect
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.scope import float_nodes


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration cost and covered."""

    images: int
    seconds: float
    peak_mb: float  # of this process, so far
    quantized: int  # products and convolutions with 8-bit inputs
    kept_float: int  # those without

    def message(self) -> str:
        """One line for the user."""
        return (
            f"calibrated on {self.images} images in {self.seconds:.0f} s, peak memory "
            f"{self.peak_mb / 1000:.1f} GB: {self.quantized} convolutions and products in INT8, "
            f"{self.kept_float} in float"
        )


def calibrate(
    model: onnx.ModelProto,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    recipe: Recipe,
    dialect: Dialect,
    console: Console,
) -> tuple[onnx.ModelProto, CalibrationReport]:
    """Insert Q/DQ pairs into the float ``model`` (input ``images``, float NCHW, normalized).

    ``images`` are uint8 [M, height, width, 3] at the network's size.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    start = time.monotonic()
    input_name = model.graph.input[0].name

    def inputs() -> Iterator[dict[str, NDArray[np.float32]]]:
        for image in images:
            yield {input_name: preprocessing.normalize(image[np.newaxis])}

    presets = {
        "performance": nncf.QuantizationPreset.PERFORMANCE,
        "mixed": nncf.QuantizationPreset.MIXED,
    }
    advanced = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.FIRST_LAYER if dialect.saturates else OverflowFix.DISABLE,
        disable_bias_correction=recipe.bias_correction == "none",
    )
    with _quiet_nncf(console), _functions_carried_through():
        try:
            quantized = nncf.quantize(
                model,
                nncf.Dataset(_Counted(inputs, len(images), console)),
                preset=presets[recipe.preset],
                subset_size=len(images),
                fast_bias_correction=True,
                ignored_scope=nncf.IgnoredScope(names=float_nodes(model)),
                advanced_parameters=advanced,
            )
        except nncf.NNCFError as error:
            first_line = str(error).splitlines()[0]
            raise EdgekitError(f"NNCF cannot calibrate this model: {first_line}") from error
    if model.functions and not quantized.functions:
        quantized.functions.extend(model.functions)
    done, kept = count_quantized(quantized)
    # Linux reports kilobytes.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    report = CalibrationReport(len(images), time.monotonic() - start, peak_mb, done, kept)
    return quantized, report


def count_quantized(model: onnx.ModelProto) -> tuple[int, int]:
    """How many convolutions and products read 8-bit data, and how many do not."""
    dequantized: set[str] = set()
    for node in model.graph.node:  # in topological order
        # The largest of some 8-bit values is one of them.
        passes_on = node.op_type == "MaxPool" and node.input[0] in dequantized
        if node.op_type == "DequantizeLinear" or passes_on:
            dequantized.update(node.output)
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    done = sum(node.input[0] in dequantized for node in products)
    return done, len(products) - done


class _Counted:
    """An iterable with a length that shows progress the first time it is walked through."""

    def __init__(self, make: object, total: int, console: Console) -> None:
        self._make, self._total, self._console = make, total, console
        self._shown = False

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[object]:
        assert callable(self._make)
        items = self._make()
        if self._shown:
            return iter(items)
        self._shown = True
        return iter(self._console.track(items, self._total, "calibrate"))


@contextlib.contextmanager
def _quiet_nncf(console: Console) -> Iterator[None]:
    """Keep NNCF's own progress bars off stdout, where results go; --verbose shows them."""
    import nncf

    nncf.set_log_level(logging.INFO if console.verbosity >= 1 else logging.ERROR)
    aside = sys.stderr if console.verbosity >= 1 else io.StringIO()
    with contextlib.redirect_stdout(aside):
        yield


@contextlib.contextmanager
def _functions_carried_through() -> Iterator[None]:
    """Let NNCF's intermediate models keep the model-local functions.

    To collect statistics NNCF copies the graph with more outputs and forgets ``functions``, so
    that ONNX Runtime no longer knows edgekit::CodebookLookup.
    """
    from nncf.onnx.graph.model_transformer import ONNXModelTransformer

    original = ONNXModelTransformer._insert_outputs

    def with_functions(model: onnx.ModelProto, outputs: list[str] | set[str]) -> onnx.ModelProto:
        copy: onnx.ModelProto = original(model, outputs)
        copy.functions.extend(model.functions)
        return copy

    ONNXModelTransformer._insert_outputs = staticmethod(with_functions)
    try:
        yield
    finally:
        ONNXModelTransformer._insert_outputs = staticmethod(original)
