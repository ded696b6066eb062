"""Rounds the 8-bit weights of convolutions to minimize the error of their outputs.

Rounding every weight to the nearest level would be best if a convolution's inputs x were
independent. They are not: neighboring pixels are alike, so weight errors e of one sign add up where
errors of both signs would cancel. The output's error is e·x, whose variance over the images is eᵀCe
with the covariance C of the inputs; its mean is left to the bias. So weights are rounded one after
another, and the error of each is compensated by the remaining ones, by least squares (Hassibi and
Stork's optimal brain surgeon, in the order and form of GPTQ, Frantar et al. 2023).
The graph keeps its scales, its size and its speed.

The covariance over a few images, or over odd ones, does not hold for others. So an output channel
keeps its nearest levels unless the new ones also reduce the error on held-out images.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.linalg import get_lapack_funcs
from threadpoolctl import threadpool_limits

from edgekit.core.console import Console
from edgekit.core.progress import track
from edgekit.data.transforms import Preprocessing
from edgekit.graph.padding import pads_of
from edgekit.graph.view import Graph, attributes, constants
from edgekit.quantize.layer_inputs import (
    Floats,
    HeldOutInputs,
    Inputs,
    Layer,
    Network,
    collect_inputs,
)
from edgekit.quantize.layer_means import MeansGraph, MeasuredMeans

# New levels must bring the held-out error below this fraction of nearest rounding's. A smaller gain
# is luck: of thousands of channels, half seem better on a few dozen images and are worse on others.
_WORTH = 0.8
_HELD_BYTES = 1 << 29  # of input products; more layers take another pass over the images
_BLOCK = 64  # weights of a row whose errors are passed on together, in one large product
_DAMPING = 0.01  # of the mean variance, added to each: other images vary where these do not


@dataclass(frozen=True)
class Rounded:
    """What a rounding changed."""

    layers: int  # those whose levels changed
    channels: int  # output channels of all layers that were tried
    changed: int  # channels with new levels
    refused: int  # channels whose new levels did not help enough on the held-out images


def round_weights(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    console: Console,
    *,
    biases_follow: bool,
    means: MeansGraph | None = None,
) -> tuple[Rounded, MeasuredMeans | None]:
    """Round the weights of ``calibrated``'s convolutions anew, in place.

    ``original`` is the float graph that was calibrated. ``images`` and ``held_out``, which decide
    what is kept, are uint8 [M, height, width, 3]. ``biases_follow``: the biases will be corrected
    afterwards, so only variances count. The values of ``means`` are measured by the way.
    """
    layers = _layers(calibrated, original, biases_follow)
    if not layers and not (means and means.layers):
        return Rounded(0, 0, 0, 0), None
    # In one thread BLAS sums in the same order wherever it runs on such a CPU. More threads would
    # also spin between the many small products, which costs more than they save.
    with threadpool_limits(limits=1, user_api="blas"):
        return _round(layers, original, images, held_out, preprocessing, console, means)


def _round(
    layers: list[Layer],
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    console: Console,
    means: MeansGraph | None,
) -> tuple[Rounded, MeasuredMeans | None]:
    parts = _parts(layers)
    total = len(parts) * (len(images) + len(held_out))
    progress = iter(track(console, range(total), total, "round weights"))
    count = channels = changed = refused = 0
    for part in parts:
        network = Network(part, original, means if part is parts[-1] else None)
        held_out_inputs, held_out_values = collect_inputs(
            network, held_out, preprocessing, progress, HeldOutInputs
        )
        typical = {name: check.typical for name, check in held_out_inputs.items()}
        inputs, values = collect_inputs(
            network, images, preprocessing, progress, functools.partial(_inputs, typical)
        )
        del network
        for layer in part:
            covariance = inputs.pop(layer.node.name).covariance(layer.centered)
            check = held_out_inputs.pop(layer.node.name)
            weights, nearest = layer.weights(), layer.levels()
            levels = least_error(weights, nearest, layer.scale, covariance)
            moved = (levels != nearest).any(axis=2)
            before = check.error(layer, weights, nearest)
            better = check.error(layer, weights, levels) < _WORTH * before
            levels = np.where((moved & better)[:, :, None], levels, nearest)
            channels += moved.size
            changed += int((moved & better).sum())
            refused += int((moved & ~better).sum())
            count += bool((moved & better).any())
            rounded = levels.astype(np.int8).reshape(tuple(layer.stored.dims))
            layer.stored.CopyFrom(numpy_helper.from_array(rounded, layer.stored.name))
    for _ in progress:  # the bar closes when it is exhausted
        pass
    measured = None if means is None else MeasuredMeans(means.layers, values, held_out_values)
    return Rounded(count, channels, changed, refused), measured


def _inputs(typical: dict[str, float], layer: Layer) -> Inputs:
    return Inputs(layer, typical[layer.node.name])


def _parts(layers: list[Layer]) -> list[list[Layer]]:
    """The layers in groups whose input products fit into memory at once."""
    parts: list[list[Layer]] = [[]]
    held = 0
    for layer in layers:
        if parts[-1] and held + layer.held > _HELD_BYTES:
            parts.append([])
            held = 0
        parts[-1].append(layer)
        held += layer.held
    return parts


def least_error(weights: Floats, nearest: Floats, scale: Floats, covariance: Floats) -> Floats:
    """Levels [G, R, K] with a small eᵀCe for the error e = scale * levels - weights.

    ``nearest`` are the levels to improve on; their largest is the largest allowed (at most 127,
    as -128 has no counterpart), and a row [K] that cannot be improved keeps them. Weights that
    are 0 stay so: whoever pruned them wants the zeros. ``scale`` is [G, R], ``covariance``
    [G, K, K].
    """
    limit = min(np.abs(nearest).max(initial=0), 127)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    damping = _DAMPING * variances.mean(axis=1)
    damping[damping <= 0] = 1.0  # an input that is always 0: any rounding will do
    # The largest errors are passed on first. So the inputs are stored in the order of their
    # variances and visited from the last on: the factor is then an ordinary lower triangle.
    order = np.argsort(-variances, axis=1, kind="stable")[:, ::-1]
    factor = _factor(covariance, damping, order)
    # Inputs before rows, so that one step reads contiguous memory: [G, K, R].
    exact = np.take_along_axis(weights.transpose(0, 2, 1), order[:, :, None], axis=1)
    limits = np.where(exact == 0, exact.dtype.type(0), limit)
    rounded, errors = np.empty_like(exact), np.empty_like(exact)
    for stop in range(exact.shape[1], 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        # First what earlier blocks' errors ask of this one, all at once; then those inside it.
        correction = factor[:, stop:, start:stop].transpose(0, 2, 1) @ errors[:, stop:]
        for j in range(stop - 1, start - 1, -1):
            target = exact[:, j] + correction[:, j - start] / factor[:, j, j, None]
            rounded[:, j] = np.clip(np.rint(target / scale), -limits[:, j], limits[:, j])
            errors[:, j] = exact[:, j] - rounded[:, j] * scale
            correction[:, : j - start] += factor[:, j, start:j, None] * errors[:, None, j]
    levels = np.empty_like(nearest)
    np.put_along_axis(
        levels,
        np.broadcast_to(order[:, None, :], levels.shape),
        rounded.transpose(0, 2, 1),
        axis=2,
    )
    # a'Ca - b'Cb with one product of the covariance instead of two.
    one, two = (candidate * scale[:, :, None] - weights for candidate in (levels, nearest))
    gain = -(((one - two) @ covariance) * (one + two)).sum(axis=2)
    # Where inputs are the same, so are the errors of many levels, but for what their sums round:
    # a share of eps of their terms, whose sizes add up to no more than this.
    sizes = np.square((np.abs(two) * np.sqrt(variances.clip(0))[:, None]).sum(axis=2))
    better = gain > np.finfo(gain.dtype).eps * sizes
    return np.where(better[:, :, None], levels, nearest)


def _factor(covariance: Floats, damping: Floats, order: NDArray[np.intp]) -> Floats:
    """Lower triangles M [G, K, K] with M Mᵀ the damped covariance, its inputs in ``order``.

    With C = M Mᵀ and the errors of the inputs after j fixed, eᵀCe is minimal where that of j is
    -Σᵢ Mᵢⱼ eᵢ / Mⱼⱼ and the earlier ones follow in turn. So column j is all that step j needs,
    and the inverse covariance, whose factor other forms of the method use, is never computed.
    What is above the triangles is left as it was.
    """
    diagonal = np.arange(covariance.shape[1])
    added = damping
    while True:
        matrix = np.stack(
            [
                one.take(by, axis=0).take(by, axis=1)
                for one, by in zip(covariance, order, strict=True)
            ]
        )
        matrix[:, diagonal, diagonal] += added[:, None]
        # Not numpy's, which copies and takes three times as long.
        (factorize,) = get_lapack_funcs(("potrf",), (matrix,))
        # Transposed, it is in Fortran order, and its upper triangle the lower one.
        results = [factorize(one.T, lower=0, clean=0, overwrite_a=1) for one in matrix]
        if not any(failed for _, failed in results):
            return matrix
        # Where inputs hardly vary around a large mean, what float32 leaves of their covariance
        # need not be positive definite.
        added = 10 * added
        if not np.isfinite(added).all():
            raise np.linalg.LinAlgError("a covariance of a layer's inputs is not finite")


def output_error(weights: Floats, levels: Floats, scale: Floats, covariance: Floats) -> Floats:
    """eᵀCe of every output channel: [G, R]."""
    error = levels * scale[:, :, None] - weights
    result: Floats = ((error @ covariance) * error).sum(axis=2)
    return result


def _layers(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, biases_follow: bool
) -> list[Layer]:
    """All 2-D convolutions whose 8-bit weights are the rounded original ones."""
    graph = Graph(calibrated)
    stored, exact = graph.constants, constants(original)
    before = {node.name: node for node in original.graph.node}
    layers = []
    for node in graph.nodes:
        if node.op_type != "Conv" or not graph.is_quantized(node.input[0]):
            continue
        reader = graph.producer.get(node.input[1])
        if reader is None or reader.op_type != "DequantizeLinear" or reader.input[0] not in stored:
            continue
        if any(len(graph.readers[name]) > 1 for name in (reader.input[0], reader.output[0])):
            continue  # shared weights have more than one kind of input
        layer = _layer(
            before[node.name],
            stored[reader.input[0]],
            stored[reader.input[1]],
            exact,
            centered=biases_follow and len(node.input) > 2,
        )
        if layer is not None:
            layers.append(layer)
    return layers


def _layer(
    node: onnx.NodeProto,
    stored: onnx.TensorProto,
    scale: onnx.TensorProto,
    exact: dict[str, onnx.TensorProto],
    *,
    centered: bool,
) -> Layer | None:
    """None where the levels are not those of the original weights, as SmoothQuant changed these.

    Or where the padding is not known.
    """
    levels = numpy_helper.to_array(stored).astype(np.float32)
    if node.input[1] not in exact or levels.ndim != 4 or pads_of(node) is None:
        return None
    weights = numpy_helper.to_array(exact[node.input[1]]).astype(np.float32)
    steps = numpy_helper.to_array(scale).astype(np.float32).reshape(-1)
    if weights.shape != levels.shape or steps.size not in (1, len(weights)):
        return None
    each = np.broadcast_to(steps, (len(weights),))
    # At most half a level, plus float32's rounding; except at the ends, where weights are clipped.
    off = np.abs(weights / each[:, None, None, None] - levels)
    if (off[np.abs(levels) < np.abs(levels).max(initial=0)] > 0.51).any():
        return None
    groups = attributes(node).get("group", 1)
    return Layer(node, exact[node.input[1]], stored, each.reshape(groups, -1), centered)
