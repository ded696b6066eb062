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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from scipy.linalg.blas import ssyrk

from edgekit.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.layers import Graph
from edgekit.quantize.probe import compile_graph
from edgekit.quantize.tables import leading_to

Floats = NDArray[np.float64]

_POSITIONS = 64  # of a layer's output in each image: enough, neighbors say nearly the same
_BATCH = 4  # images whose activations are held at once
_HELD_BYTES = 1 << 29  # of products of inputs: more layers take another pass over the images
_WIDE = 64  # inputs from which on the product of a layer is worth a call of its own
_BLOCK = 64  # weights of a row whose errors reach the others together: one large product
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

    @property
    def held(self) -> int:
        """Bytes of the products of its inputs."""
        groups, _, inputs = self.levels.shape
        return int(groups * inputs * inputs * 4)


class _Inputs:
    """What a layer's inputs were like."""

    def __init__(self, layer: _Layer) -> None:
        groups, _, inputs = layer.levels.shape
        self._count = 0
        self._total = np.zeros((groups, inputs))
        # Where there are many inputs, the triangle [k, j <= k] alone is kept up: summing in place
        # saves, for each batch, a temporary and a mirrored copy of what may be 85 MB.
        self._triangular = inputs >= _WIDE
        self._products = np.zeros((groups, inputs, inputs), np.float32)

    def add(self, rows: NDArray[np.float32]) -> None:
        """More of them, [G, N, K]."""
        self._count += rows.shape[1]
        self._total += rows.sum(axis=1, dtype=np.float64)
        if not self._triangular:
            self._products += rows.transpose(0, 2, 1) @ rows
            return
        for products, some in zip(self._products, rows, strict=True):
            # Transposed, both are in Fortran's order, and the upper triangle is the lower one.
            ssyrk(1.0, some.T, 1.0, products.T, overwrite_c=1)

    def covariance(self, centered: bool) -> Floats:
        """[G, K, K]; the second moments if not ``centered``."""
        moments: Floats = self._products / np.float64(self._count)
        if self._triangular:
            for one in moments:
                for start in range(0, len(one), _BLOCK):  # in blocks, which fit into the cache
                    stop = min(start + _BLOCK, len(one))
                    inner = np.tril(one[start:stop, start:stop])
                    one[start:stop, start:stop] = inner + np.tril(inner, -1).T
                    one[start:stop, stop:] = one[stop:, start:stop].T
        if centered:
            mean = self._total / self._count
            for one, of in zip(moments, mean, strict=True):
                one -= np.outer(of, of)
        return moments


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
    parts = _parts(layers)
    total = len(parts) * len(images)
    progress = iter(console.track(range(total), total, "round weights"))
    changed = 0
    for part in parts:
        seen = _watch(part, original, images, preprocessing, progress)
        for layer in part:
            covariance = seen.pop(layer.node.name).covariance(layer.centered)
            levels = least_error(layer.weights, layer.levels, layer.scale, covariance)
            changed += not np.array_equal(levels, layer.levels)
            found = levels.astype(np.int8).reshape(tuple(layer.stored.dims))
            layer.stored.CopyFrom(numpy_helper.from_array(found, layer.stored.name))
    for _ in progress:  # the last step is when it ends
        pass
    return changed


def _parts(layers: list[_Layer]) -> list[list[_Layer]]:
    """Layers whose inputs' products are held at once."""
    parts: list[list[_Layer]] = [[]]
    held = 0
    for layer in layers:
        if parts[-1] and held + layer.held > _HELD_BYTES:
            parts.append([])
            held = 0
        parts[-1].append(layer)
        held += layer.held
    return parts


def _watch(
    layers: list[_Layer],
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    progress: Iterator[int],
) -> dict[str, _Inputs]:
    """The inputs of each layer by the name of its node, while ``original`` sees the images."""
    source = original.graph.input[0].name
    inner = sorted({layer.node.input[0] for layer in layers} - {source})
    request, place = None, {}
    if inner:
        compiled = compile_graph(leading_to(original, inner))
        place = {output.get_any_name(): at for at, output in enumerate(compiled.outputs)}
        request = compiled.create_infer_request()
    seen = {layer.node.name: _Inputs(layer) for layer in layers}
    # One for each, so that it does not matter which layers are watched together.
    random = {layer.node.name: np.random.default_rng(0) for layer in layers}
    for start in range(0, len(images), _BATCH):
        block = images[start : start + _BATCH]
        values = {source: preprocessing.normalize(block)}
        if request is not None:
            request.infer(dict(values))
            # Not copies: 40 MB an image in a ResNet-50, of which patches take little.
            values |= {name: request.get_output_tensor(at).data for name, at in place.items()}
        for layer in layers:
            kernel = layer.stored.dims[2:]
            name = layer.node.name
            rows = patches(values[layer.node.input[0]], layer.node, kernel, random[name])
            seen[name].add(rows)
        for _ in block:
            next(progress)
    return seen


def least_error(weights: Floats, nearest: Floats, scale: Floats, covariance: Floats) -> Floats:
    """Levels [G, R, K] with a small eᵀCe for the error e = scale * levels - weights.

    ``nearest`` are the levels to improve upon, whose largest is the largest allowed (at most 127,
    as -128 has no counterpart); where a row [K] cannot be improved it keeps them. ``scale``
    [G, R], ``covariance`` [G, K, K].
    """
    limit = min(np.abs(nearest).max(initial=0), 127)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    damping = _DAMPING * variances.mean(axis=1)
    damping[damping <= 0] = 1.0  # an input that is always 0: any rounding will do
    order = np.argsort(-variances, axis=1, kind="stable")  # what weighs most has most to pass on
    factor = _factor(covariance, damping, order)
    # Inputs first, so that those of one step lie together: [G, K, R].
    exact = np.take_along_axis(weights.transpose(0, 2, 1), order[:, :, None], axis=1)
    rounded, errors = np.empty_like(exact), np.empty_like(exact)
    count = exact.shape[1]
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # What the errors so far ask of the block, all at once; then what those inside it ask.
        asked = factor[:, :start, start:stop].transpose(0, 2, 1) @ errors[:, :start]
        for j in range(start, stop):
            wanted = exact[:, j] + asked[:, j - start] / factor[:, j, j, None]
            rounded[:, j] = np.clip(np.rint(wanted / scale), -limit, limit)
            errors[:, j] = exact[:, j] - rounded[:, j] * scale
            asked[:, j - start + 1 :] += factor[:, j, j + 1 : stop, None] * errors[:, None, j]
    levels = np.empty_like(nearest)
    np.put_along_axis(
        levels,
        np.broadcast_to(order[:, None, :], levels.shape),
        rounded.transpose(0, 2, 1),
        axis=2,
    )
    # a'Ca - b'Cb with one product of the covariance instead of two.
    one, two = (found * scale[:, :, None] - weights for found in (levels, nearest))
    better = (((one - two) @ covariance) * (one + two)).sum(axis=2) < 0
    return np.where(better[:, :, None], levels, nearest)


def _factor(covariance: Floats, damping: Floats, order: NDArray[np.intp]) -> Floats:
    """Upper triangles M [G, K, K] with M Mᵀ the damped covariance, its inputs in ``order``.

    With C = M Mᵀ and the errors of the inputs before j fixed, eᵀCe is least where that of j is
    -Σᵢ Mᵢⱼ eᵢ / Mⱼⱼ, and the later ones follow in turn: column j says all that is needed, and the
    inverse covariance, whose factor other forms of the method use, never has to be found.
    """
    backwards = order[:, ::-1]
    matrix = np.stack([one[np.ix_(by, by)] for one, by in zip(covariance, backwards, strict=True)])
    diagonal = np.arange(matrix.shape[1])
    matrix[:, diagonal, diagonal] += damping[:, None]
    factor: Floats = np.linalg.cholesky(matrix)[:, ::-1, ::-1]  # backwards, lower is upper
    return factor


def output_error(weights: Floats, levels: Floats, scale: Floats, covariance: Floats) -> Floats:
    """eᵀCe of every output channel: [G, R]."""
    error = levels * scale[:, :, None] - weights
    result: Floats = ((error @ covariance) * error).sum(axis=2)
    return result


def patches(
    values: NDArray[np.float32],
    node: onnx.NodeProto,
    kernel: Sequence[int],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """What a convolution multiplies its weights with, at some positions: [G, N, K].

    ``values`` is its input [B, channels, height, width], ``kernel`` its height and width.
    """
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    strides = attributes.get("strides", [1, 1])
    dilations = attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0] * 4)  # top, left, bottom, right
    groups = attributes.get("group", 1)
    channels, sizes = values.shape[1], values.shape[2:]
    height, width = (
        (sizes[axis] + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1)
        // strides[axis]
        + 1
        for axis in range(2)
    )
    found = []
    for image in values:
        take = random.choice(height * width, min(_POSITIONS, height * width), replace=False)
        # Where each patch lies in the input, [N, kernel's height] and [N, its width].
        down, right = (
            position[:, None] * strides[axis]
            - pads[axis]
            + np.arange(kernel[axis]) * dilations[axis]
            for axis, position in enumerate(np.divmod(take, width))
        )
        inside = ((down >= 0) & (down < sizes[0]))[:, :, None] & (
            (right >= 0) & (right < sizes[1])
        )[:, None, :]
        # Only what is looked at is read: a padded copy of the whole would cost more than all else.
        rows = image[
            :, down.clip(0, sizes[0] - 1)[:, :, None], right.clip(0, sizes[1] - 1)[:, None, :]
        ]
        rows *= inside  # [channels, N, kernel]; outside there are zeros
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
        layer = _layer(
            before[node.name],
            stored[reader.input[0]],
            stored[reader.input[1]],
            exact,
            centered=biases_follow and len(node.input) > 2,
        )
        if layer is not None:
            found.append(layer)
    return found


def _layer(
    node: onnx.NodeProto,
    stored: onnx.TensorProto,
    scale: onnx.TensorProto,
    exact: dict[str, onnx.TensorProto],
    *,
    centered: bool,
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
        centered,
    )
