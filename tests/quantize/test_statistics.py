"""NNCF's statistics, collected leanly, are the ones that NNCF collects itself."""

import contextlib
from typing import Any

import nncf
import numpy as np
import onnx
import pytest
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    AdvancedSmoothQuantParameters,
)
from onnx import helper, numpy_helper

from edgekit.core.errors import EdgekitError
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
    with lean_statistics() if lean else contextlib.nullcontext():
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


def constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


def awkward(version: int) -> onnx.ModelProto:
    """Weights in nodes instead of the graph's constants, one of rank 1, and a depthwise layer."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    nodes = [
        constant("first", normal(8, 3, 3, 3)),
        helper.make_node("Conv", ["x", "first"], ["a"], name="a"),
        helper.make_node("Conv", ["a", "second"], ["b"], name="b", group=8),
        helper.make_node("Relu", ["b"], ["c"], name="c"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], name="d"),
        helper.make_node("Flatten", ["d"], ["e"], name="e"),
        constant("third", normal(8)),
        helper.make_node("MatMul", ["e", "third"], ["y"], name="y"),
    ]
    ends = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 12, 12]),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]),
    ]
    stored = [numpy_helper.from_array(normal(8, 1, 3, 3), "second")]
    graph = helper.make_graph(nodes, "awkward", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def calibrated(model: onnx.ModelProto, images: list[np.ndarray], *, lean: bool) -> bytes:
    with lean_statistics() if lean else contextlib.nullcontext():
        result = nncf.quantize(model, nncf.Dataset([{"x": image} for image in images]))
    data: bytes = result.SerializeToString(deterministic=True)
    return data


@pytest.mark.parametrize("version", [17, 18])
def test_weights_in_nodes_of_any_rank(version: int) -> None:
    random = np.random.default_rng(1)
    images = [random.normal(size=(1, 3, 12, 12)).astype(np.float32) for _ in range(3)]
    model = awkward(version)
    assert calibrated(model, images, lean=True) == calibrated(model, images, lean=False)


def test_a_value_that_is_no_number_is_named() -> None:
    images = [np.zeros((1, 3, 12, 12), np.float32) for _ in range(3)]
    images[1][0, 1, 5, 5] = np.nan
    with pytest.raises(EdgekitError, match="makes x of the float model not a number"):
        calibrated(awkward(17), images, lean=True)
