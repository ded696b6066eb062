"""The inputs of a float graph's convolutions, sampled at some positions of each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.linalg.blas import ssyrk

from edgekit.core.console import Console
from edgekit.core.progress import track
from edgekit.data.transforms import Preprocessing
from edgekit.graph.padding import pads_of
from edgekit.graph.view import attributes
from edgekit.quantize.engine import compile_graph
from edgekit.quantize.layer_means import MeansGraph, MeasuredMeans, Values
from edgekit.quantize.tables import leading_to

Floats = NDArray[np.floating[Any]]

_POSITIONS = 64  # per image, of a layer's output: enough, as neighbors are nearly the same
_HELD_OUT_POSITIONS = 16  # where rounding is only checked
_BATCH = 2  # images whose activations are held at once
_WIDE = 64  # from this many inputs on, a BLAS call per group pays
_BLOCK = 64  # rows mirrored at once; they fit into the CPU's cache


@dataclass(frozen=True)
class Layer:
    """A convolution whose weights are stored in 8 bits.

    It refers to its tensors instead of converting them: in float32 those of all layers would take
    8 bytes per weight.
    """

    node: onnx.NodeProto  # of the float graph
    exact: onnx.TensorProto  # the float weights [G * R, ...]
    stored: onnx.TensorProto  # the levels, of the same shape
    scale: NDArray[np.float32]  # [G, R]
    centered: bool  # whether a bias corrects the mean of the error

    @property
    def shape(self) -> tuple[int, int, int]:
        """G, R, K: groups, output channels of each, inputs of each."""
        groups, rows = self.scale.shape
        return groups, rows, math.prod(self.stored.dims[1:])

    def weights(self) -> Floats:
        """The float weights [G, R, K]."""
        return self._singles(self.exact)

    def levels(self) -> Floats:
        """The rounded weights, in steps of ``scale``: [G, R, K]."""
        return self._singles(self.stored)

    def _singles(self, tensor: onnx.TensorProto) -> Floats:
        values: Floats = numpy_helper.to_array(tensor).astype(np.float32)
        return values.reshape(self.shape)

    @property
    def held(self) -> int:
        """Bytes that the products of its inputs take."""
        groups, _, inputs = self.shape
        return int(groups * inputs * inputs * 4)


class Inputs:
    """The first and second moments of a layer's inputs."""

    def __init__(self, layer: Layer, typical: float) -> None:
        groups, _, inputs = layer.shape
        self._typical = typical  # mean square of an image's inputs
        self._count = 0
        self._total = np.zeros((groups, inputs))
        # With many inputs, only the triangle [k, j <= k] is maintained: summing in place saves a
        # temporary and a mirrored copy per batch, of up to 85 MB.
        self._triangular = inputs >= _WIDE
        self._products = np.zeros((groups, inputs, inputs), np.float32)

    def add(self, rows: NDArray[np.float32], images: int) -> None:
        """Add the inputs ``rows`` [G, N, K] of ``images`` images."""
        rows = damped(rows, mean_square(rows, images), self._typical)
        self._count += rows.shape[1]
        self._total += rows.sum(axis=1, dtype=np.float64)
        if not self._triangular:
            self._products += rows.transpose(0, 2, 1) @ rows
            return
        for products, some in zip(self._products, rows, strict=True):
            # Transposed, both are in Fortran order, and the upper triangle is the lower one.
            ssyrk(1.0, some.T, 1.0, products.T, overwrite_c=1)

    def covariance(self, centered: bool) -> NDArray[np.float32]:
        """[G, K, K]; the second moments if not ``centered``. The products become it, in place."""
        moments = self._products
        moments /= self._count
        mean = (self._total / self._count).astype(np.float32)
        for one, of in zip(moments, mean, strict=True):
            for start in range(0, len(one), _BLOCK):
                stop = min(start + _BLOCK, len(one))
                if self._triangular:
                    inner = np.tril(one[start:stop, start:stop])
                    one[start:stop, start:stop] = inner + np.tril(inner, -1).T
                    one[start:stop, stop:] = one[stop:, start:stop].T
                if centered:
                    one[start:stop, start:] -= np.outer(of[start:stop], of[start:])
                    one[stop:, start:stop] = one[start:stop, stop:].T
        return moments


class HeldOutInputs:
    """Held-out inputs, which show how well a layer was rounded."""

    def __init__(self, layer: Layer) -> None:
        self._rows: list[NDArray[np.float32]] = []
        self._sizes: list[NDArray[np.float32]] = []

    def add(self, rows: NDArray[np.float32], images: int) -> None:
        """Add the inputs [G, N, K] of ``images`` images, at some of their positions."""
        groups, count, inputs = rows.shape
        step = max(1, count // images // _HELD_OUT_POSITIONS)
        some = rows.reshape(groups, images, -1, inputs)[:, :, ::step]
        self._rows.append(some.reshape(groups, -1, inputs))
        self._sizes.append(mean_square(rows, images))

    @property
    def typical(self) -> float:
        """The mean square of a typical image's inputs."""
        return float(np.median(np.concatenate(self._sizes)))

    def error(self, layer: Layer, weights: Floats, levels: Floats) -> Floats:
        """The mean squared error of every output channel, or its variance if centered: [G, R]."""
        rows = np.concatenate(self._rows, axis=1)
        rows = damped(rows, np.concatenate(self._sizes), self.typical)
        error = (levels * layer.scale[:, :, None] - weights).astype(np.float32)
        off = rows @ error.transpose(0, 2, 1)  # [G, N, R]
        result: Floats = np.square(off, dtype=np.float64).mean(axis=1)
        if layer.centered:
            result -= np.square(off.mean(axis=1, dtype=np.float64))
        return result


Collector = TypeVar("Collector", Inputs, HeldOutInputs)


class Network:
    """The float graph, compiled as far as it leads to some layers' inputs, and means beside it."""

    def __init__(
        self, layers: list[Layer], original: onnx.ModelProto, means: MeansGraph | None = None
    ) -> None:
        self.layers = layers
        self.measured = means.values if means else []
        self._source = original.graph.input[0].name
        inner = {*self.measured, *(layer.node.input[0] for layer in layers)} - {self._source}
        self._inner = sorted(inner)
        self._request = None
        if inner:
            compiled = compile_graph(
                leading_to(original, self._inner, means.added if means else None)
            )
            self._request = compiled.model.create_infer_request()

    def values(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The layers' inputs and the means of these images by name, until the next call."""
        values: dict[str, NDArray[Any]] = {self._source: pixels}
        if self._request is not None:
            self._request.start_async(dict(values))
            self._request.wait()  # with one thread, infer() loses errors
            # Not copied: a ResNet-50 has 40 MB per image, of which patches take little.
            values |= {
                name: self._request.get_output_tensor(place).data
                for place, name in enumerate(self._inner)
            }
        return values


def collect_inputs(
    network: Network,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    progress: Iterator[int],
    collect: Callable[[Layer], Collector],
) -> tuple[dict[str, Collector], Values]:
    """Run the network on the images and collect each layer's inputs, by the name of its node.

    The means are returned for every image.
    """
    kept: Values = {}
    collectors = {layer.node.name: collect(layer) for layer in network.layers}
    # One generator per layer: the result does not depend on which layers share a pass.
    random = {name: np.random.default_rng(0) for name in collectors}
    for start in range(0, len(images), _BATCH):
        block = images[start : start + _BATCH]
        values = network.values(preprocessing.normalize(block))
        for layer in network.layers:
            kernel = layer.stored.dims[2:]
            name = layer.node.name
            rows = patches(values[layer.node.input[0]], layer.node, kernel, random[name])
            collectors[name].add(rows, len(block))
        for name in network.measured:
            measured: NDArray[Any] = values[name]
            if name not in kept:
                kept[name] = np.empty((len(images), *measured.shape[1:]), measured.dtype)
            kept[name][start : start + _BATCH] = measured
        for _ in block:
            next(progress)
    return collectors, kept


def measure(
    means: MeansGraph,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    console: Console,
) -> MeasuredMeans:
    """The values of ``means`` beside ``original`` in ``images`` and in ``held_out``."""
    total = len(images) + len(held_out)
    progress = iter(track(console, range(total), total, "measure biases"))
    network = Network([], original, means)
    values, held_out_values = (
        collect_inputs(network, some, preprocessing, progress, HeldOutInputs)[1]
        for some in (images, held_out)
    )
    for _ in progress:  # the bar closes when it is exhausted
        pass
    return MeasuredMeans(means.layers, values, held_out_values)


def damped(
    rows: NDArray[np.float32], size: NDArray[np.float32], typical: float
) -> NDArray[np.float32]:
    """``rows`` [G, N, K], scaled down for images whose ``size`` [B] is above the typical one.

    A corruption can make a layer's inputs ten times as large. Their errors would drown all others,
    but what matters is the error relative to the layer's output.
    """
    factor = np.sqrt(typical / np.maximum(size, max(typical, 1e-30)))
    every: NDArray[np.float32] = np.repeat(factor, rows.shape[1] // len(size)).astype(np.float32)
    return rows * every[:, None]


def mean_square(rows: NDArray[np.float32], images: int) -> NDArray[np.float32]:
    """The mean square of each image's inputs: [B]."""
    groups, _, inputs = rows.shape
    result: NDArray[np.float32] = np.square(rows.reshape(groups, images, -1, inputs)).mean(
        axis=(0, 2, 3)
    )
    return result


def patches(
    values: NDArray[np.float32],
    node: onnx.NodeProto,
    kernel: Sequence[int],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """What a convolution multiplies by its weights, at random positions: [G, N, K].

    ``values`` is its input [B, channels, height, width], ``kernel`` its height and width.
    """
    options = attributes(node)
    strides = options.get("strides", [1, 1])
    dilations = options.get("dilations", [1, 1])
    pads = pads_of(node)
    assert pads is not None
    groups = options.get("group", 1)
    channels, sizes = values.shape[1], values.shape[2:]
    height, width = (
        (sizes[axis] + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1)
        // strides[axis]
        + 1
        for axis in range(2)
    )
    parts = []
    for image in values:
        take = random.choice(height * width, min(_POSITIONS, height * width), replace=False)
        # Rows and columns of each patch in the input: [N, kernel height] and [N, kernel width].
        down, right = (
            position[:, None] * strides[axis]
            - pads[axis]
            + np.arange(kernel[axis]) * dilations[axis]
            for axis, position in enumerate(np.divmod(take, width))
        )
        inside = ((down >= 0) & (down < sizes[0]))[:, :, None] & (
            (right >= 0) & (right < sizes[1])
        )[:, None, :]
        # Only the patches are read: a padded copy of the whole would cost more than all the rest.
        rows = image[
            :, down.clip(0, sizes[0] - 1)[:, :, None], right.clip(0, sizes[1] - 1)[:, None, :]
        ]
        rows *= inside  # [channels, N, kernel]; zero padding outside
        parts.append(rows.reshape(groups, channels // groups, len(take), -1).transpose(0, 2, 1, 3))
    joined = np.concatenate(parts, axis=1)  # [G, N, channels of a group, kernel]
    return joined.reshape(*joined.shape[:2], -1)
