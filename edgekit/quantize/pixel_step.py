"""Chooses the INT8 step of the images themselves."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.data.transforms import Preprocessing
from edgekit.graph.view import PAIR, constants


def fit_pixels(
    calibrated: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
) -> bool:
    """Choose the pixels' INT8 step by their squared error, in place; return whether it changed.

    NNCF takes the mean of the images' extremes, which clips the brightest pixels. But a pixel has
    one of 256 values: a step that hits most of them exactly beats any range, even if it clips
    white by one level. The step changes only where the range is symmetric, as with preset
    "performance", and only if the error on ``held_out`` images falls as well.
    """
    tensors = constants(calibrated)
    name = calibrated.graph.input[0].name
    pairs = [node for node in calibrated.graph.node if name in node.input[:1]]
    if len(pairs) != 1 or pairs[0].op_type != "QuantizeLinear":
        return False
    scale, zero = (numpy_helper.to_array(tensors[value]) for value in pairs[0].input[1:3])
    if zero.dtype != np.int8 or zero.any() or scale.size != 1:
        return False
    step = pixel_step(images, preprocessing)
    if pixel_error(step, held_out, preprocessing) >= pixel_error(
        float(scale.ravel()[0]), held_out, preprocessing
    ):
        return False
    fitted = numpy_helper.from_array(np.array(step, scale.dtype).reshape(scale.shape))
    fitted.name = f"{pairs[0].input[1]}/pixels"
    calibrated.graph.initializer.append(fitted)
    before = pairs[0].input[1]
    for node in calibrated.graph.node:
        if node.op_type in PAIR and node.input[1] == before:
            node.input[1] = fitted.name
    return True


def pixel_step(images: NDArray[np.uint8], preprocessing: Preprocessing) -> float:
    """The step of an int8 with zero-point 0 that rounds normalized pixels with the least error."""
    values, counts = _histogram(images, preprocessing)
    # From a range that clips a tenth to one that wastes a tenth.
    steps = np.abs(values).max() / np.linspace(115, 140, 251)
    errors = [_error(float(step), values, counts) for step in steps]
    return float(steps[np.argmin(errors)])


def pixel_error(step: float, images: NDArray[np.uint8], preprocessing: Preprocessing) -> float:
    """The summed squared error of the images' normalized pixels in int8 with this ``step``."""
    return _error(step, *_histogram(images, preprocessing))


def _error(step: float, values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    levels = np.clip(np.rint(values / step), -128, 127)
    return float((np.square(levels * step - values) * counts).sum())


def _histogram(
    images: NDArray[np.uint8], preprocessing: Preprocessing
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What each of the 256 values is normalized to, and how often it occurs: both [256, 3]."""
    height, width = preprocessing.size
    count = -(-256 // (height * width))
    grays = (np.arange(count * height * width) % 256).astype(np.uint8)
    shown_once = np.repeat(grays[:, None], 3, axis=1).reshape(count, height, width, 3)
    planes = preprocessing.normalize(shown_once).transpose(0, 2, 3, 1).reshape(-1, 3)
    values = planes[:256].astype(np.float64)
    shown = images if preprocessing.channel_order == "RGB" else images[..., ::-1]
    counts = np.stack([np.bincount(shown[..., c].ravel(), minlength=256) for c in range(3)], axis=1)
    return values, counts
