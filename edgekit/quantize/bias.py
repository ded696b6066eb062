"""Corrects the biases of convolutions and matrix products.

A depthwise convolution sums few products (9 for 3 x 3), so the rounding of its weights does not
average out: every channel's output is shifted, by the same amount in every image. The mean shift
over the calibration images is subtracted from the bias. Each layer is measured on the float
model's activations: what its weights make of the mean of its 8-bit inputs, against the mean of the
float model's output.

A mean that a few images dominate is worthless. So an image counts less where a layer's output is
larger than usual (a corruption can make it ten times as large), the mean is trimmed and clipped to
the spread of the layer's output, and a channel keeps its bias unless the shift also lowers the
error on held-out images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from threadpoolctl import threadpool_limits

from edgekit.graph.view import Graph, attributes, drop_unused
from edgekit.quantize.emulation import represented
from edgekit.quantize.layer_means import Floats, LayerMeans, MeasuredMeans

_TRIMMED = 0.1  # of the images, left out at either end
_NOISE = 2e-6  # of a layer's output: what float32 leaves uncertain of its mean


@dataclass(frozen=True)
class CorrectedBiases:
    """What a correction changed."""

    layers: int  # those with a bias and 8-bit inputs
    channels: int  # of all these layers
    changed: int  # channels whose bias was corrected


def correct_biases(calibrated: onnx.ModelProto, measured: MeasuredMeans) -> CorrectedBiases:
    """Change the biases of the measured layers of ``calibrated`` in place."""
    graph = Graph(calibrated)
    nodes = {node.name: node for node in calibrated.graph.node}
    channels = changed = 0
    for name in measured.layers:
        node = nodes[name]
        weights = represented(graph, node.input[1])
        assert weights is not None
        bias = numpy_helper.to_array(graph.constants[node.input[2]])
        # In one thread BLAS sums in the same order wherever it runs on such a CPU.
        with threadpool_limits(limits=1, user_api="blas"):
            fit, check = (
                _Shifts.of(LayerMeans.of(name, values), node, weights, bias)
                for values in (measured.values, measured.held_out)
            )
            shift = trimmed_mean(fit.off, fit.weights).clip(-fit.spread, fit.spread)
            helps = check.error(shift) < check.error(np.zeros_like(shift))
        helps &= np.abs(shift) > _NOISE * fit.size
        channels += len(shift)
        changed += int(helps.sum())
        # Another layer, with another shift or none, may share this bias: each gets its own.
        own = f"{name}/bias"
        taken = shift / attributes(node).get("beta", 1.0)
        corrected = (bias - np.where(helps, taken, 0.0)).astype(bias.dtype)
        calibrated.graph.initializer.append(numpy_helper.from_array(corrected, own))
        node.input[2] = own
    drop_unused(calibrated)  # biases that no layer reads any more
    return CorrectedBiases(len(measured.layers), channels, changed)


@dataclass(frozen=True)
class _Shifts:
    """By how much a layer's channels are off, in some images."""

    off: Floats  # [M, channels]
    weights: Floats  # [M], sum 1: less where the layer's output is larger than the median
    spread: Floats  # [channels]: standard deviation of the layer's output
    size: Floats  # [channels]: its root mean square

    @classmethod
    def of(
        cls,
        means: LayerMeans,
        node: onnx.NodeProto,
        weights: NDArray[np.floating],
        bias: NDArray[np.floating],
    ) -> _Shifts:
        """The shifts of a layer, a node of the calibrated graph with these weights and bias."""
        strength = means.squares.mean(axis=1)
        share = 1 / np.maximum(strength, max(float(np.median(strength)), 1e-30))
        variance = means.squares.mean(axis=0) - np.square(means.outputs.mean(axis=0))
        added = attributes(node).get("beta", 1.0) * bias.astype(np.float64)
        off = mean_outputs(node, means.inputs, weights) + added - means.outputs
        size = np.sqrt(means.squares.mean(axis=0))
        return cls(off, share / share.sum(), np.sqrt(variance.clip(0)), size)

    def error(self, shift: Floats) -> Floats:
        """The mean squared error of every channel after this correction: [channels]."""
        result: Floats = self.weights @ np.square(self.off - shift)
        return result


def trimmed_mean(values: Floats, weights: Floats) -> Floats:
    """The weighted mean over axis 0, without the lowest and the highest tenth.

    At least one value is left out at either end, as long as one remains.
    """
    count = len(values)
    cut = min((count - 1) // 2, max(1, int(_TRIMMED * count)))
    middle = np.argsort(values, axis=0)[cut : count - cut]
    share = weights[middle]
    weighted = np.take_along_axis(values, middle, axis=0) * share
    result: Floats = weighted.sum(axis=0) / share.sum(axis=0)
    return result


def mean_outputs(node: onnx.NodeProto, means: Floats, weights: NDArray[np.floating]) -> Floats:
    """What a layer's weights make of the means of its inputs, without its bias: [M, channels]."""
    options = attributes(node)
    matrix = weights.astype(np.float64)
    if node.op_type == "Gemm":
        product: Floats = means @ (matrix.T if options.get("transB", 0) else matrix)
        return product * float(options.get("alpha", 1.0))
    groups = options.get("group", 1)
    patches = means.reshape(len(means), groups, -1).transpose(1, 0, 2)  # [G, M, K]
    by_group = matrix.reshape(groups, len(matrix) // groups, -1)  # [G, R, K]
    found = patches @ by_group.transpose(0, 2, 1)
    result: Floats = found.transpose(1, 0, 2).reshape(len(means), -1)
    return result
