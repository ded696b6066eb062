"""Weights rounded for the least error of what a convolution says."""

import dataclasses
import functools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from threadpoolctl import threadpool_limits

from edgekit.core.console import Console
from edgekit.quantize import rounding
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.engine import compile_graph, run_compiled
from edgekit.quantize.layer_inputs import measure, patches
from edgekit.quantize.layer_means import graph_of_means
from edgekit.quantize.recipes import Recipe, read_recipe
from edgekit.quantize.results import CalibrationReport
from edgekit.quantize.rounding import _layers, least_error, output_error, round_weights
from edgekit.targets.dialects import DIALECTS
from tests import bundles
from tests.quantize.graphs import quantized

QUIET = Console(verbosity=-1)
RECIPE = Recipe(images=32)


def layer(
    seed: int, groups: int, rows: int, inputs: int, alike: float
) -> tuple[NDArray[np.float64], ...]:
    """Weights, their nearest levels, scales, and a covariance; ``alike``: of the inputs, 0 to 1."""
    random = np.random.default_rng(seed)
    weights = random.normal(0, 1, (groups, rows, inputs))
    scale = np.abs(weights).max(axis=2) / 7  # 4 bits, for clear errors
    common = random.normal(0, 1, (groups, 200, 1))
    seen = (1 - alike) * random.normal(0, 1, (groups, 200, inputs)) + alike * common
    covariance = seen.transpose(0, 2, 1) @ seen / 200
    return weights, np.rint(weights / scale[:, :, None]), scale, covariance


@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 3),
    rows=st.integers(1, 4),
    inputs=st.integers(1, 12),
    alike=st.floats(0, 1),
)
@example(seed=2790, groups=1, rows=2, inputs=8, alike=1.0)  # equal but for the sums' rounding
def test_no_output_errs_more_than_by_nearest_rounding(
    seed: int, groups: int, rows: int, inputs: int, alike: float
) -> None:
    weights, nearest, scale, covariance = layer(seed, groups, rows, inputs, alike)
    levels = least_error(weights, nearest, scale, covariance)
    assert np.array_equal(levels, np.rint(levels))
    assert np.abs(levels).max() <= np.abs(nearest).max()
    before = output_error(weights, nearest, scale, covariance)
    assert (output_error(weights, levels, scale, covariance) <= before).all()


def test_weights_that_are_zero_stay_so() -> None:
    """Pruned weights: kernels for sparse weights want the zeros where they are."""
    weights, nearest, scale, covariance = layer(0, 2, 64, 24, 0.9)
    gone = np.random.default_rng(1).random(weights.shape) < 0.5
    weights[gone] = nearest[gone] = 0
    levels = least_error(weights, nearest, scale, covariance)
    assert (levels[~gone] != nearest[~gone]).any()
    assert not levels[gone].any()


def test_inputs_that_are_alike_let_errors_cancel() -> None:
    weights, nearest, scale, covariance = layer(0, 1, 64, 27, 0.9)
    levels = least_error(weights, nearest, scale, covariance)
    errors = [output_error(weights, x, scale, covariance).mean() for x in (levels, nearest)]
    assert errors[0] < 0.1 * errors[1]


@pytest.mark.parametrize("variances", ["different", "none"])
def test_independent_inputs_leave_the_nearest(variances: str) -> None:
    """With a diagonal covariance nothing can be passed on; without inputs nothing is gained."""
    weights, nearest, scale, _ = layer(1, 2, 5, 9, 0)
    values = np.random.default_rng(2).uniform(0.5, 2, (2, 9))
    if variances == "none":
        values[:] = 0
    levels = least_error(weights, nearest, scale, values[:, :, None] * np.eye(9))
    assert np.array_equal(levels, nearest)


def test_levels_fit_into_8_bits() -> None:
    """A weight stored as -128 does not allow +128."""
    weights, _, _, covariance = layer(3, 1, 8, 9, 0.9)
    weights[0, 0, 0] = -np.abs(weights).max()
    scale = np.full((1, 8), np.abs(weights).max() / 128)
    nearest = np.clip(np.rint(weights / scale[:, :, None]), -128, 127)
    assert nearest.min() == -128
    levels = least_error(weights, nearest, scale, covariance)
    assert (levels != nearest).any()
    assert levels.min() >= -128
    assert levels.max() <= 127


def test_the_best_of_all_roundings_is_nearly_found() -> None:
    """Against all 3 ** 6 neighbors of the nearest levels, over 60 layers of one output."""
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 6), axis=-1).reshape(-1, 6)
    best = found = plain = 0.0
    for seed in range(60):
        weights, nearest, scale, covariance = layer(seed, 1, 1, 6, 0.8)
        limit = np.abs(nearest).max()
        candidates = np.clip(nearest[0, 0] + steps, -limit, limit)[None]
        every = output_error(
            np.broadcast_to(weights, candidates.shape),
            candidates,
            np.broadcast_to(scale, candidates.shape[:2]),
            covariance,
        )
        levels = least_error(weights, nearest, scale, covariance)
        best += float(every.min())
        found += float(output_error(weights, levels, scale, covariance).sum())
        plain += float(output_error(weights, nearest, scale, covariance).sum())
    assert found < 1.2 * best
    assert found < plain / 2


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 1, 0]},
        {"kernel_shape": [1, 1], "group": 2},
        {"kernel_shape": [3, 3], "group": 4, "dilations": [2, 2]},
    ],
)
def test_patches_are_what_a_convolution_sums(attributes: dict[str, Any]) -> None:
    """Products of patches and weights are torch's convolution, at all positions at once."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (1, 4, 8, 7)).astype(np.float32)
    groups = int(attributes.get("group", 1))
    kernel = attributes["kernel_shape"]
    weights = random.normal(0, 1, (8, 4 // groups, *kernel)).astype(np.float32)
    # 64 positions hold all that there are.
    rows = patches(values, node, kernel, np.random.default_rng(1))
    pads = attributes.get("pads", [0, 0, 0, 0])
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(values), (left, right, top, bottom))
    exact = torch.nn.functional.conv2d(
        padded,
        torch.from_numpy(weights),
        stride=attributes.get("strides", 1),
        dilation=attributes.get("dilations", 1),
        groups=groups,
    )[0].numpy()
    found = np.einsum("gnk,grk->grn", rows, weights.reshape(groups, 8 // groups, -1))
    for channel, expected in zip(found.reshape(8, -1), exact.reshape(8, -1), strict=True):
        assert np.sort(channel) == pytest.approx(np.sort(expected), abs=1e-4)


@functools.cache
def made_with(rounding: str, bias: str) -> tuple[onnx.ModelProto, CalibrationReport]:
    made = bundles.made()
    recipe = dataclasses.replace(RECIPE, rounding=rounding, bias_correction=bias)  # type: ignore[arg-type]
    return calibrate(
        onnx.load(made.onnx),
        bundles.images(32, seed=3),
        bundles.images(128, seed=4),
        made.card.preprocessing,
        recipe,
        DIALECTS["openvino"],
        QUIET,
    )


def output_errors(model: onnx.ModelProto) -> list[tuple[float, float]]:
    """Of every convolution's rounded weights, on images that did not calibrate.

    The variance of what the output is off by, and its mean square, both over the output's own.
    """
    made = bundles.made()
    original = onnx.load(made.onnx)
    exact = {tensor.name: tensor for tensor in original.graph.initializer}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    reader = {node.output[0]: node for node in model.graph.node}
    before = {node.name: node for node in original.graph.node}
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    inner = [before[name].input[0] for name in names if before[name].input[0] != "images"]
    for name in inner:
        kind = onnx.TensorProto.FLOAT
        original.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    batch = {"images": made.card.preprocessing.normalize(bundles.images(64, seed=9))}
    values = {**run_compiled(compile_graph(original), [batch])[0], **batch}
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        dequantize = reader[node.input[1]]
        levels = numpy_helper.to_array(stored[dequantize.input[0]]).astype(np.float64)
        scale = numpy_helper.to_array(stored[dequantize.input[1]]).reshape(-1, 1, 1, 1)
        weights = numpy_helper.to_array(exact[before[node.name].input[1]])
        inputs = values[before[node.name].input[0]]
        rows = patches(inputs, node, levels.shape[2:], np.random.default_rng(0))[0]
        off = rows @ (levels * scale - weights).reshape(len(weights), -1).T
        said = float((rows @ weights.reshape(len(weights), -1).T).var(axis=0).mean())
        found.append((off.var(axis=0).mean() / said, np.square(off).mean() / said))
    return found


@pytest.mark.parametrize("centered", [True, False])
def test_convolutions_err_less_on_other_images(centered: bool) -> None:
    """Biases take the mean back or not: what they leave is what becomes smaller."""
    made = bundles.made()
    nearest, plain = made_with("nearest", "none")
    model = onnx.ModelProto()
    model.CopyFrom(nearest)
    found, _ = round_weights(
        model,
        onnx.load(made.onnx),
        bundles.images(64, seed=3),
        bundles.images(128, seed=4),
        made.card.preprocessing,
        QUIET,
        biases_follow=centered,
    )
    assert (plain.rounded, found.layers) == (0, 3)  # the convolutions
    onnx.checker.check_model(model)
    which = 0 if centered else 1
    pairs = list(zip(output_errors(nearest), output_errors(model), strict=True))
    assert len(pairs) == 3
    for before, after in pairs:
        assert after[which] < 0.8 * before[which]
    # The same nodes with the same scales: the same speed.
    assert [node.op_type for node in model.graph.node] == [
        node.op_type for node in nearest.graph.node
    ]


@pytest.mark.parametrize("held_bytes", [rounding._HELD_BYTES, 1], ids=["at once", "in parts"])
def test_means_are_measured_by_the_way(held_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of a pass of their own, whether all layers share a pass or none do."""
    monkeypatch.setattr(rounding, "_HELD_BYTES", held_bytes)
    made = bundles.made()
    original, preprocessing = onnx.load(made.onnx), made.card.preprocessing
    images, others = bundles.images(7), bundles.images(5, seed=1)
    model = onnx.ModelProto()
    model.CopyFrom(made_with("nearest", "none")[0])
    means = graph_of_means(model, original)
    assert len(means.layers) == 4
    alone = measure(means, original, images, others, preprocessing, QUIET)
    _, found = round_weights(
        model, original, images, others, preprocessing, QUIET, biases_follow=True, means=means
    )
    assert found is not None
    assert found.layers == means.layers
    pairs = ((found.values, alone.values, 7), (found.held_out, alone.held_out, 5))
    for ours, theirs, count in pairs:
        assert list(ours) == list(theirs) == means.values
        for name, values in ours.items():
            assert len(values) == count
            np.testing.assert_array_equal(values, theirs[name])


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAS splits sums among its threads, and what it says of the inputs changes with them."""
    made, nearest = bundles.made(), made_with("nearest", "none")[0]
    found: dict[int, list[NDArray[Any]]] = {1: [], 2: []}
    for threads, kept in found.items():
        monkeypatch.setattr(
            rounding,
            "least_error",
            lambda *given, kept=kept: kept.append(given[-1].copy()) or least_error(*given),
        )
        model = onnx.ModelProto()
        model.CopyFrom(nearest)
        images, others = bundles.images(8), bundles.images(4, seed=1)
        with threadpool_limits(limits=threads, user_api="blas"):
            round_weights(
                model, onnx.load(made.onnx), images, others, made.card.preprocessing, QUIET,
                biases_follow=True,
            )  # fmt: skip
    assert len(found[1]) == 3
    for one, two in zip(found[1], found[2], strict=True):
        assert np.array_equal(one, two)


def test_a_calibration_says_what_it_corrected() -> None:
    report = made_with("least-error", "full")[1]
    assert report.rounded == 3
    assert report.corrected == 4  # the convolutions, and the product with a bias
    assert "they err less that way on held-out images" in report.message()


def test_inputs_that_hardly_vary_are_no_trouble() -> None:
    """What float32 leaves of their covariance need not be positive definite."""
    random = np.random.default_rng(0)
    covariance = random.normal(0, 1, (1, 40, 40))
    covariance = covariance @ covariance.transpose(0, 2, 1) / 40
    covariance -= 0.5 * np.linalg.eigvalsh(covariance).max() * np.eye(40)
    weights = random.normal(0, 1, (1, 8, 40))
    scale = np.full((1, 8), 0.05)
    nearest = np.rint(weights / 0.05)
    levels = least_error(weights, nearest, scale, covariance)
    assert np.isfinite(levels).all()
    assert np.abs(levels).max() <= np.abs(nearest).max()


def test_weights_that_smoothing_changed_are_left_alone() -> None:
    """Their original is not in the float graph any more."""
    model = made_with("nearest", "none")[0]
    original = onnx.load(bundles.made().onnx)
    for tensor in original.graph.initializer:
        if tensor.name == "backbone.second.weight":
            value = 1.5 * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    preprocessing = bundles.made().card.preprocessing
    images, others = bundles.images(8), bundles.images(32, seed=1)
    found, _ = round_weights(
        copy, original, images, others, preprocessing, QUIET, biases_follow=False
    )
    assert found.layers == 2


def test_a_graph_without_such_layers_is_left_alone() -> None:
    model = quantized()
    before = model.SerializeToString()
    preprocessing = bundles.made().card.preprocessing
    images = bundles.images(2)
    float_graph = onnx.load(bundles.made().onnx)
    del float_graph.graph.node[:]
    for node in model.graph.node:
        float_graph.graph.node.append(node)
    found, _ = round_weights(
        model, float_graph, images, images, preprocessing, QUIET, biases_follow=True
    )
    assert found.layers == found.channels == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("count", [1, 16])
@pytest.mark.parametrize("centered", [True, False])
def test_no_channel_errs_more_on_the_images_held_out(count: int, centered: bool) -> None:
    """Noise says nothing about the images that follow; what it gets wrong is not kept."""
    made = bundles.made()
    original = onnx.load(made.onnx)
    preprocessing = made.card.preprocessing
    noise = np.random.default_rng(0).integers(0, 256, (count, *bundles.SIZE, 3), dtype=np.uint8)
    others = bundles.images(64, seed=9)
    model = onnx.ModelProto()
    model.CopyFrom(made_with("nearest", "none")[0])
    found, _ = round_weights(
        model, original, noise, others, preprocessing, QUIET, biases_follow=centered
    )
    assert found.refused > 0
    which = 0 if centered else 1
    nearest = output_errors(made_with("nearest", "none")[0])
    for before, after in zip(nearest, output_errors(model), strict=True):
        assert after[which] <= 1.02 * before[which]  # other positions of the same images


def test_which_recipes_round_how() -> None:
    rounding = {name: read_recipe(name).rounding for name in ("default", "controlled", "clean")}
    assert rounding == {
        "default": "least-error",
        "controlled": "least-error",
        "clean": "nearest",  # what other tools do
    }


def test_layers_hold_no_copies_of_their_weights() -> None:
    """In float64 those of a ResNet-50 took 380 MB beside the graphs that they come from."""
    original = onnx.load(bundles.made().onnx)
    layers = _layers(made_with("nearest", "none")[0], original, biases_follow=True)
    assert len(layers) == 3
    for layer in layers:
        arrays = [value for value in vars(layer).values() if isinstance(value, np.ndarray)]
        assert sum(array.size for array in arrays) == layer.scale.size == layer.stored.dims[0]
        exact = numpy_helper.to_array(layer.exact)
        assert np.array_equal(layer.weights().ravel(), exact.ravel().astype(np.float64))
        assert np.array_equal(layer.levels().ravel(), numpy_helper.to_array(layer.stored).ravel())
