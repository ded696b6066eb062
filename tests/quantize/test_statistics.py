"""NNCF's statistics, collected leanly, are the ones that NNCF collects itself."""

import contextlib
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import pytest
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    AdvancedSmoothQuantParameters,
)

from edgekit.quantize.calibrate import _range_estimator
from edgekit.quantize.recipes import Recipe
from edgekit.quantize.statistics import lean_statistics
from tests import bundles


def quantized(*, lean: bool, smooth: bool = False, **options: Any) -> bytes:
    made = bundles.made(plain=True)  # NNCF itself would lose a codebook's function
    images = made.card.preprocessing.normalize(bundles.images(6, seed=3))
    recipe = Recipe(**options)
    advanced = AdvancedQuantizationParameters(
        disable_bias_correction=recipe.bias_correction == "none",
        activations_range_estimator_params=_range_estimator(recipe),
        smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=0.5 if smooth else -1),
    )
    with lean_statistics(Path()) if lean else contextlib.nullcontext():
        model = nncf.quantize(
            onnx.load(made.onnx),
            nncf.Dataset([{"images": image[np.newaxis]} for image in images]),
            preset=nncf.QuantizationPreset(recipe.preset),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if smooth else None,
            advanced_parameters=advanced,
        )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@pytest.mark.parametrize(
    "options",
    [
        {"bias_correction": "none"},
        {"bias_correction": "none", "preset": "mixed", "statistics": "minmax"},
        {"bias_correction": "none", "statistics": "percentile", "percentile": 99.0},
        {"bias_correction": "none", "statistics": "mse"},
        {"bias_correction": "fast"},
        {"bias_correction": "none", "smooth": True},
    ],
    ids=["mean-minmax", "minmax", "percentile", "mse", "fast", "smooth"],
)
def test_the_same_model_comes_out(options: dict[str, Any]) -> None:
    assert quantized(lean=True, **options) == quantized(lean=False, **options)
