"""The images' own 8-bit range."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.data.transforms import IMAGENET, LITE0, Preprocessing
from edgekit.quantize.bias import cover_pixels
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


@pytest.mark.parametrize("preprocessing", [IMAGENET, LITE0])
def test_black_and_white_are_not_clipped(preprocessing: Preprocessing) -> None:
    """Whatever the calibration images held; and not a level of the 8 bits is given away."""
    model = quantized()
    before, _ = scale_of_images(model)
    assert cover_pixels(model, preprocessing)
    step, users = scale_of_images(model)
    assert users == ["QuantizeLinear", "DequantizeLinear"]
    assert step != before
    height, width = preprocessing.size
    pixels = np.zeros((2, height, width, 3), np.uint8)
    pixels[1] = 255
    codes = np.round(preprocessing.normalize(pixels) / step)
    assert np.abs(codes).max() == 127
    onnx.checker.check_model(model)


def test_other_ranges_are_left_alone() -> None:
    """Only a pair with zero-point 0 can be widened this way."""
    model = quantized()
    (zero,) = (tensor for tensor in model.graph.initializer if tensor.name == "images_zero")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    before = model.SerializeToString()
    assert not cover_pixels(model, IMAGENET)
    assert model.SerializeToString() == before
