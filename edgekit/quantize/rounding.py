"""Rounds the 8-bit weights of convolutions so that their outputs err least.

Rounding every weight to the nearest level takes their errors e for independent. A convolution's
inputs x are not: neighboring pixels are alike, so errors of one sign add up where errors of two
signs would cancel. What its output is off by is e·x, whose variance over the images is eᵀCe with
the covariance C of the inputs; the mean is the bias's to correct. So weights are rounded one after
another, and the error of each is passed on to those that are still to come, by least squares
(Hassibi and Stork's optimal brain surgeon, in the order and form of GPTQ, Frantar et al. 2023).
The graph keeps its scales, its size and its speed.

A covariance of few images, or of odd ones, is not that of the others. So an output channel keeps
its nearest levels unless the new ones also err less on images that had no part in it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.core.console import Console
from edgekit.core.progress import track
from edgekit.data.transforms import Preprocessing
from edgekit.graph.view import Graph, attributes, constants
from edgekit.quantize.layer_inputs import Floats, HeldOutInputs, Inputs, Layer, watch

# Of nearest rounding's error on held-out images; where it is nearly that, the rest is luck: of
# thousands of channels half seem better on some dozens of images, and are worse on the next.
_WORTH = 0.8
_HELD_BYTES = 1 << 29  # of products of inputs: more layers take another pass over the images
_BLOCK = 64  # weights of a row whose errors reach the others together: one large product
_DAMPING = 0.01  # of the mean variance, added to each: what was not seen may still be


@dataclass(frozen=True)
class Rounded:
    """What a rounding changed."""

    layers: int  # of those with 8-bit weights, how many have other levels now
    channels: int  # output channels of all of them
    changed: int  # channels with other levels
    refused: int  # channels whose new levels erred more on the images held out


def round_weights(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
    console: Console,
    *,
    biases_follow: bool,
) -> Rounded:
    """Round the convolutions' weights of ``calibrated`` anew, in place.

    ``original`` is the float graph that was calibrated; ``images`` and ``held_out``, which decide
    what is kept, are uint8 [M, height, width, 3]. ``biases_follow``: the biases are corrected
    afterwards, so that only variances count.
    """
    layers = _layers(calibrated, original, biases_follow)
    if not layers:
        return Rounded(0, 0, 0, 0)
    parts = _parts(layers)
    total = len(parts) * (len(images) + len(held_out))
    progress = iter(track(console, range(total), total, "round weights"))
    count = channels = changed = refused = 0
    for part in parts:
        others = watch(part, original, held_out, preprocessing, progress, HeldOutInputs)
        typical = {name: judge.typical for name, judge in others.items()}
        seen = watch(
            part,
            original,
            images,
            preprocessing,
            progress,
            functools.partial(_inputs, typical),
        )
        for layer in part:
            covariance = seen.pop(layer.node.name).covariance(layer.centered)
            judge = others.pop(layer.node.name)
            weights, nearest = layer.weights(), layer.levels()
            levels = least_error(weights, nearest, layer.scale, covariance)
            moved = (levels != nearest).any(axis=2)
            before = judge.error(layer, weights, nearest)
            better = judge.error(layer, weights, levels) < _WORTH * before
            levels = np.where((moved & better)[:, :, None], levels, nearest)
            channels += moved.size
            changed += int((moved & better).sum())
            refused += int((moved & ~better).sum())
            count += bool((moved & better).any())
            found = levels.astype(np.int8).reshape(tuple(layer.stored.dims))
            layer.stored.CopyFrom(numpy_helper.from_array(found, layer.stored.name))
    for _ in progress:  # the last step is when it ends
        pass
    return Rounded(count, channels, changed, refused)


def _inputs(typical: dict[str, float], layer: Layer) -> Inputs:
    return Inputs(layer, typical[layer.node.name])


def _parts(layers: list[Layer]) -> list[list[Layer]]:
    """Layers whose inputs' products are held at once."""
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
    added = damping
    while True:
        matrix[:, diagonal, diagonal] += added[:, None]
        try:
            factor: Floats = np.linalg.cholesky(matrix)[:, ::-1, ::-1]  # backwards, lower is upper
        except np.linalg.LinAlgError:
            # Inputs that hardly vary around a large mean: what float32 has left of their
            # covariance need not be one.
            added = 10 * added
            if not np.isfinite(added).all():
                raise
        else:
            return factor


def output_error(weights: Floats, levels: Floats, scale: Floats, covariance: Floats) -> Floats:
    """eᵀCe of every output channel: [G, R]."""
    error = levels * scale[:, :, None] - weights
    result: Floats = ((error @ covariance) * error).sum(axis=2)
    return result


def _layers(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, biases_follow: bool
) -> list[Layer]:
    """All convolutions of two dimensions whose 8-bit weights are the rounded original ones."""
    graph = Graph(calibrated)
    stored, exact = graph.constants, constants(original)
    before = {node.name: node for node in original.graph.node}
    found = []
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
            found.append(layer)
    return found


def _layer(
    node: onnx.NodeProto,
    stored: onnx.TensorProto,
    scale: onnx.TensorProto,
    exact: dict[str, onnx.TensorProto],
    *,
    centered: bool,
) -> Layer | None:
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
    groups = attributes(node).get("group", 1)
    return Layer(node, exact[node.input[1]], stored, each.reshape(groups, -1), centered)
