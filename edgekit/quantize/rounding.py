"""Rounds the 8-bit weights of convolutions so that their outputs err least.

Rounding every weight to the nearest level takes their errors e for independent. A convolution's
inputs x are not: neighboring pixels are alike, so errors of one sign add up where errors of two
signs would cancel. What its output is off by is e·x, whose variance over the images is eᵀCe with
the covariance C of the inputs; the mean is the bias's to correct. So weights are rounded one after
another, and the error of each is passed on to those that are still to come, by least squares
(Hassibi and Stork's optimal brain surgeon, in the order and form of GPTQ, Frantar et al. 2023).
The graph keeps its scales, its size and its speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.layers import Graph
from edgekit.quantize.probe import compile_graph, run_compiled

Floats = NDArray[np.float64]

_POSITIONS = 64  # of a layer's output in each image: enough, neighbors say nearly the same
_BATCH = 4  # images whose activations are held at once
_DAMPING = 0.01  # of the mean variance, added to each: what was not seen may still be


@dataclass
class _Layer:
    """A convolution whose weights are stored in 8 bits."""

    node: onnx.NodeProto  # of the float graph
    weights: Floats  # [G, R, K]: groups, output channels of each, inputs of each
    stored: onnx.TensorProto  # the levels [G * R, ...]
    levels: Floats  # [G, R, K]
    scale: Floats  # [G, R]
    centered: bool  # whether a bias takes the mean of the error back
    count: int = 0
    total: Floats | float = 0.0  # [G, K]: of the inputs
    products: Floats | float = 0.0  # [G, K, K]

    def covariance(self) -> Floats:
        """[G, K, K], or the second moments where nothing corrects the mean."""
        moments = np.asarray(self.products) / self.count
        if not self.centered:
            return moments
        mean = np.asarray(self.total) / self.count
        return moments - mean[:, :, None] * mean[:, None, :]


def round_weights(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    console: Console,
    *,
    biases_follow: bool,
) -> int:
    """Round the convolutions' weights of ``calibrated`` anew, in place; how many layers changed.

    ``original`` is the float graph that was calibrated, ``images`` uint8 [M, height, width, 3].
    ``biases_follow``: the biases are corrected afterwards, so that only variances count.
    """
    layers = _layers(calibrated, original, biases_follow)
    if not layers:
        return 0
    random = np.random.default_rng(0)
    source = original.graph.input[0].name
    inner = sorted({layer.node.input[0] for layer in layers} - {source})
    compiled = compile_graph(_with_outputs(original, inner))
    starts = range(0, len(images), _BATCH)
    for start in console.track(starts, len(starts), "round weights"):
        batch = {source: preprocessing.normalize(images[start : start + _BATCH])}
        values = {**run_compiled(compiled, [batch])[0], **batch}
        for layer in layers:
            rows = patches(values[layer.node.input[0]], layer.node, random)
            layer.count += rows.shape[1]
            layer.total = layer.total + rows.sum(axis=1, dtype=np.float64)
            products: Floats = (rows.transpose(0, 2, 1) @ rows).astype(np.float64)
            layer.products = layer.products + products
    changed = 0
    for layer in layers:
        levels = least_error(layer.weights, layer.levels, layer.scale, layer.covariance())
        layer.products = 0.0  # the largest thing here
        changed += not np.array_equal(levels, layer.levels)
        found = levels.astype(np.int8).reshape(tuple(layer.stored.dims))
        layer.stored.CopyFrom(numpy_helper.from_array(found, layer.stored.name))
    return changed


def least_error(weights: Floats, nearest: Floats, scale: Floats, covariance: Floats) -> Floats:
    """Levels [G, R, K] with a small eᵀCe for the error e = scale * levels - weights.

    ``nearest`` are the levels to improve upon, whose largest is the largest allowed; where a row
    [K] cannot be improved it keeps them. ``scale`` [G, R], ``covariance`` [G, K, K].
    """
    limit = np.abs(nearest).max(initial=0)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    damping = _DAMPING * variances.mean(axis=1)
    damping[damping <= 0] = 1.0  # an input that is always 0: any rounding will do
    damped = covariance + damping[:, None, None] * np.eye(covariance.shape[1])
    order = np.argsort(-variances, axis=1, kind="stable")  # what weighs most has most to pass on
    left = np.take_along_axis(weights, order[:, None, :], axis=2)
    damped = np.take_along_axis(damped, order[:, :, None], axis=1)
    damped = np.take_along_axis(damped, order[:, None, :], axis=2)
    # Row j of this factor of the inverse says how the inputs behind j can stand in for j.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    rounded = np.empty_like(left)
    for j in range(left.shape[2]):
        rounded[:, :, j] = np.clip(np.rint(left[:, :, j] / scale), -limit, limit)
        error = (left[:, :, j] - rounded[:, :, j] * scale) / factor[:, j, j, None]
        left[:, :, j + 1 :] -= error[:, :, None] * factor[:, None, j, j + 1 :]
    levels = np.empty_like(rounded)
    np.put_along_axis(levels, np.broadcast_to(order[:, None, :], levels.shape), rounded, axis=2)
    better = output_error(weights, levels, scale, covariance) < output_error(
        weights, nearest, scale, covariance
    )
    return np.where(better[:, :, None], levels, nearest)


def output_error(weights: Floats, levels: Floats, scale: Floats, covariance: Floats) -> Floats:
    """eᵀCe of every output channel: [G, R]."""
    error = levels * scale[:, :, None] - weights
    result: Floats = ((error @ covariance) * error).sum(axis=2)
    return result


def patches(
    values: NDArray[np.float32], node: onnx.NodeProto, random: np.random.Generator
) -> NDArray[np.float32]:
    """What a convolution multiplies its weights with, at some positions: [G, N, K].

    ``values`` is its input [B, channels, height, width].
    """
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1, 1])
    dilations = attributes.get("dilations", [1, 1])
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    groups = attributes.get("group", 1)
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))[
        :, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]
    ]
    count, channels, height, width = windows.shape[:4]
    found = []
    for image in range(count):
        take = random.choice(height * width, min(_POSITIONS, height * width), replace=False)
        rows = windows[image][:, take // width, take % width]  # [channels, N, kernel]
        found.append(rows.reshape(groups, channels // groups, len(take), -1).transpose(0, 2, 1, 3))
    joined = np.concatenate(found, axis=1)  # [G, N, channels of a group, kernel]
    return joined.reshape(*joined.shape[:2], -1)


def _layers(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, biases_follow: bool
) -> list[_Layer]:
    """All convolutions of two dimensions whose 8-bit weights are the rounded original ones."""
    graph = Graph(calibrated)
    stored = {tensor.name: tensor for tensor in calibrated.graph.initializer}
    exact = {tensor.name: tensor for tensor in original.graph.initializer}
    before = {node.name: node for node in original.graph.node}
    readers: dict[str, int] = {}
    for node in calibrated.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    found = []
    for node in calibrated.graph.node:
        if node.op_type != "Conv" or not graph.is_quantized(node.input[0]):
            continue
        reader = graph.producer.get(node.input[1])
        if reader is None or reader.op_type != "DequantizeLinear" or reader.input[0] not in stored:
            continue
        if readers[reader.input[0]] > 1 or readers[reader.output[0]] > 1:
            continue  # shared weights have more than one kind of input
        layer = _layer(before[node.name], stored[reader.input[0]], stored[reader.input[1]], exact)
        if layer is not None:
            layer.centered = biases_follow and len(node.input) > 2
            found.append(layer)
    return found


def _layer(
    node: onnx.NodeProto,
    stored: onnx.TensorProto,
    scale: onnx.TensorProto,
    exact: dict[str, onnx.TensorProto],
) -> _Layer | None:
    """None where the levels are not the original weights': SmoothQuant has changed those."""
    levels: Floats = numpy_helper.to_array(stored).astype(np.float64)
    if node.input[1] not in exact or levels.ndim != 4:
        return None
    weights: Floats = numpy_helper.to_array(exact[node.input[1]]).astype(np.float64)
    steps: Floats = numpy_helper.to_array(scale).astype(np.float64).reshape(-1)
    if weights.shape != levels.shape or steps.size not in (1, len(weights)):
        return None
    each = np.broadcast_to(steps, (len(weights),))
    # Up to half a level and what float32 adds; clipped ones at the ends aside.
    off = np.abs(weights / each[:, None, None, None] - levels)
    if (off[np.abs(levels) < np.abs(levels).max(initial=0)] > 0.51).any():
        return None
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    shape = (groups, len(weights) // groups, -1)
    return _Layer(
        node,
        weights.reshape(shape),
        stored,
        levels.reshape(shape),
        each.reshape(shape[:2]),
        centered=False,
    )


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    kind: Any = onnx.TensorProto.FLOAT
    for name in names:
        extended.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return extended
