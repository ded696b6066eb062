"""Post-training INT8 calibration with NNCF, on the portable ONNX graph.

One calibration serves every runtime that accumulates in 32 bits; `edgekit.graph.legalize` adapts
its result to each of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.progress import track
from edgekit.data.transforms import Preprocessing
from edgekit.graph.layers import float_layers, quantized_layers, weight_names
from edgekit.graph.view import PRODUCTS
from edgekit.quantize.corrections import correct
from edgekit.quantize.float_scope import float_scope
from edgekit.quantize.recipes import Recipe, check_dialect
from edgekit.quantize.results import CalibrationReport
from edgekit.quantize.statistics import lean_statistics
from edgekit.quantize.tables import restore_tables, set_aside_again, tables_in_files
from edgekit.targets.dialects import Dialect


def calibrate(
    model: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    recipe: Recipe,
    dialect: Dialect,
    console: Console,
) -> tuple[onnx.ModelProto, CalibrationReport]:
    """Insert Q/DQ pairs into the float ``model`` (input ``images``, float NCHW, normalized).

    ``images`` set the ranges, and ``held_out``, which are other images, decide which corrections
    are kept: both uint8 [M, height, width, 3] at the network's size.
    """
    import nncf
    from nncf.onnx.quantization.backend_parameters import BackendParameters
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
    )

    check_dialect(recipe, dialect)
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
        # In every layer: NNCF's default, the first layer only, left Lite0's logits twice as far
        # from float on a CPU without VNNI as on any other (docs/calibration.md).
        overflow_fix=OverflowFix.ENABLE if dialect.saturates else OverflowFix.DISABLE,
        # "full" is edgekit's own correction, which is kept only where it helps.
        disable_bias_correction=recipe.bias_correction != "fast",
        activations_range_estimator_params=_range_estimator(recipe),
        smooth_quant_alphas=AdvancedSmoothQuantParameters(
            convolution=recipe.smooth_quant or -1, matmul=recipe.smooth_quant or -1
        ),
    )
    with tables_in_files(model) as (light, folder):
        advanced.backend_params = {BackendParameters.EXTERNAL_DATA_DIR: str(folder)}
        with _quiet_nncf(console), lean_statistics():
            try:
                quantized = nncf.quantize(
                    light,
                    nncf.Dataset(_Counted(inputs, len(images), console)),
                    preset=presets[recipe.preset],
                    subset_size=len(images),
                    fast_bias_correction=True,
                    # NNCF smooths nothing in a model of another type.
                    model_type=nncf.ModelType.TRANSFORMER if recipe.smooth_quant else None,
                    ignored_scope=nncf.IgnoredScope(names=list(float_scope(model, recipe))),
                    advanced_parameters=advanced,
                )
            except _nncf_errors() as error:
                first_line = (str(error).splitlines() or [type(error).__name__])[0]
                raise EdgekitError(f"NNCF cannot calibrate this model: {first_line}") from error
        if model.functions and not quantized.functions:
            quantized.functions.extend(model.functions)
        quantized = set_aside_again(quantized, light)  # NNCF reads all files in the end
        quantized, corrections = correct(
            quantized, light, images, held_out, preprocessing, recipe, console
        )
    restore_tables(quantized, model)
    # Linux reports KiB.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return quantized, describe(
        quantized,
        CalibrationReport(
            len(images),
            time.monotonic() - start,
            peak_mb,
            0,
            0,
            rounded=corrections.rounded.layers,
            corrected=corrections.biases.layers,
            held_back=corrections.message(),
        ),
        weight_names(model),
    )


def describe(
    model: onnx.ModelProto, report: CalibrationReport, weights: dict[str, str]
) -> CalibrationReport:
    """``report`` with the counts of ``model``; ``weights`` maps nodes to names of their weights."""
    in_float = tuple(weights.get(name, name) for name in float_layers(model))
    operations = {node.name: node.op_type for node in model.graph.node}
    quantized = sum(operations[name] in PRODUCTS for name in quantized_layers(model))
    return dataclasses.replace(
        report, quantized=quantized, kept_float=len(in_float), not_quantized=in_float
    )


def _nncf_errors() -> tuple[type[Exception], ...]:
    """NNCF's own exceptions: they have no common base class."""
    from nncf import errors

    return tuple(
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )


def _range_estimator(recipe: Recipe) -> Any:
    """NNCF's parameters for the activations' ranges."""
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if recipe.statistics == "percentile":
        quantile = StatisticsCollectorParameters(
            statistics_type=StatisticsType.QUANTILE,
            aggregator_type=AggregatorType.MEAN,
            quantile_outlier_prob=1 - recipe.percentile / 100,
        )
        return RangeEstimatorParameters(min=quantile, max=quantile)
    return {
        "mean-minmax": RangeEstimatorParameters(),  # NNCF's default
        "minmax": RangeEstimatorParametersSet.MINMAX,
        "mse": RangeEstimatorParametersSet.HISTOGRAM,
    }[recipe.statistics]


class _Counted:
    """An iterable with a length that shows progress the first time it is iterated over."""

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
        return _Taken(items, self._total, self._console)


class _Taken(Iterator[object]):
    """Shows what is taken, and is done with the last item: NNCF does not ask for one more.

    A generator that waits there ends when it is dropped, and Python ignores a Ctrl-C meanwhile.
    """

    def __init__(self, items: Iterable[object], total: int, console: Console) -> None:
        self._items, self._left = iter(items), total
        self._progress = iter(track(console, range(total), total, "calibrate"))

    def __next__(self) -> object:
        item = next(self._items)
        next(self._progress, None)
        self._left -= 1
        if self._left == 0:
            next(self._progress, None)
        return item


@contextlib.contextmanager
def _quiet_nncf(console: Console) -> Iterator[None]:
    """Keep NNCF's own progress bars off stdout, where results go; --verbose shows them."""
    # Not nncf.set_log_level: it also sets the level of handlers that are not NNCF's.
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.INFO if console.verbosity >= 1 else logging.ERROR)
    sink = sys.stderr if console.verbosity >= 1 else io.StringIO()
    try:
        with contextlib.redirect_stdout(sink):
            yield
    finally:
        logger.setLevel(before)
