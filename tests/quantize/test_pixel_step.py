"""The images' own 8-bit range."""

import dataclasses

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.data.transforms import IMAGENET, LITE0, Preprocessing
from edgekit.quantize.pixel_step import fit_pixels, pixel_error, pixel_step
from tests.quantize.graphs import quantized


def scale_of_images(model: onnx.ModelProto) -> tuple[float, list[str]]:
    """The step of the images' codes, and who uses it."""
    users = [
        node
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and node.name.startswith("node_images")
    ]
    (name,) = {node.input[1] for node in users}
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return float(numpy_helper.to_array(tensor)), [node.op_type for node in users]


def gray(value: int, preprocessing: Preprocessing, count: int = 1) -> NDArray[np.uint8]:
    return np.full((count, *preprocessing.size, 3), value, np.uint8)


def test_the_graph_gets_the_step() -> None:
    model = quantized()
    before, _ = scale_of_images(model)
    images = np.random.default_rng(0).integers(0, 256, (2, *IMAGENET.size, 3)).astype(np.uint8)
    others = np.random.default_rng(1).integers(0, 256, images.shape).astype(np.uint8)
    assert fit_pixels(model, images, others, IMAGENET)
    step, users = scale_of_images(model)
    assert users == ["QuantizeLinear", "DequantizeLinear"]
    assert step != before
    assert step == pytest.approx(pixel_step(images, IMAGENET))
    onnx.checker.check_model(model)


def test_grays_that_lie_on_a_grid_are_exact() -> None:
    """(pixel - 127) / 128 in steps of 1 / 128, all but white."""
    images = np.arange(255).repeat(3).reshape(1, 5, 51, 3).astype(np.uint8)
    small = dataclasses.replace(LITE0, size=(5, 51))
    step = pixel_step(images, small)
    assert step == pytest.approx(1 / 128, rel=1e-6)
    off = small.normalize(images) / step
    assert np.abs(off - np.round(off)).max() < 1e-4


@pytest.mark.parametrize("preprocessing", [IMAGENET, LITE0])
def test_the_step_is_the_best_for_what_is_shown(preprocessing: Preprocessing) -> None:
    """Nothing but black and white: both must be met, whatever it costs the grays."""
    images = np.concatenate([gray(0, preprocessing), gray(255, preprocessing, 3)])
    step = pixel_step(images, preprocessing)

    def error(by: float) -> float:
        values = preprocessing.normalize(images).astype(np.float64)
        return float(np.square(np.clip(np.round(values / by), -128, 127) * by - values).mean())

    widest = float(np.abs(preprocessing.normalize(images)).max())
    assert error(step) <= min(error(widest / 127), error(widest / 127.5), error(widest / 120))
    assert error(step) < 0.1 * step**2


def test_channels_may_be_the_other_way_round() -> None:
    """Counts belong to the channel that they were taken from."""
    images = np.zeros((1, *IMAGENET.size, 3), np.uint8)
    images[..., 0] = 200
    turned = dataclasses.replace(
        IMAGENET, channel_order="BGR", mean=IMAGENET.mean[::-1], std=IMAGENET.std[::-1]
    )
    assert pixel_step(images, turned) == pytest.approx(pixel_step(images, IMAGENET))


def test_other_ranges_are_left_alone() -> None:
    """Only a pair with zero-point 0 can be widened this way."""
    model = quantized()
    (zero,) = (tensor for tensor in model.graph.initializer if tensor.name == "images_zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    before = model.SerializeToString()
    assert not fit_pixels(model, gray(7, IMAGENET), gray(7, IMAGENET), IMAGENET)
    assert model.SerializeToString() == before


def test_a_step_that_is_worse_for_other_images_is_dropped() -> None:
    """Fitted to black alone, the step gives white away."""
    model = quantized()
    before, _ = scale_of_images(model)
    images, others = gray(0, IMAGENET), gray(255, IMAGENET)
    step = pixel_step(images, IMAGENET)
    assert pixel_error(step, others, IMAGENET) > pixel_error(before, others, IMAGENET)
    unchanged = model.SerializeToString()
    assert not fit_pixels(model, images, others, IMAGENET)
    assert model.SerializeToString() == unchanged
