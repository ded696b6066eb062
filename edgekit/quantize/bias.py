"""Corrects the biases of convolutions and matrix products.

A depthwise convolution sums few products (9 for 3 x 3), so the rounding of its weights does not
average out: every channel's output is shifted, by the same amount in every image. The mean shift
over the calibration images is subtracted from the bias. Each layer is measured on the float
model's activations, all layers in one pass.

A mean that a few images dominate is worthless. So an image counts less where a layer's output is
larger than usual (a corruption can make it ten times as large), the mean is trimmed and clipped to
the spread of the layer's output, and a channel keeps its bias unless the shift also lowers the
error on held-out images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.data.transforms import Preprocessing
from edgekit.graph.reductions import reduce_over
from edgekit.graph.view import (
    PAIR,
    PASS_THROUGH,
    Graph,
    add_outputs,
    constants,
    copied,
    drop_unused,
)
from edgekit.quantize.emulation import make_float
from edgekit.quantize.engine import BATCH, CompiledGraph, compile_graph, run_compiled
from edgekit.quantize.mean_patches import average_inputs, can_average

Floats = NDArray[np.float64]

_TRIMMED = 0.1  # of the images, left out at either end


@dataclass(frozen=True)
class CorrectedBiases:
    """What a correction changed."""

    layers: int  # those with a bias and 8-bit inputs
    channels: int  # of all these layers
    changed: int  # channels whose bias was corrected


def correct_biases(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
) -> CorrectedBiases:
    """Change the biases of ``calibrated`` in place.

    ``original`` is the float graph that was calibrated. The shifts are computed from ``images``,
    and ``held_out`` decide which are kept: both uint8 [M, height, width, 3].
    """
    layers = _layers(calibrated)
    if not layers:
        return CorrectedBiases(0, 0, 0)
    branches = _with_branches(calibrated, original, layers)
    make_float(branches)  # which saturates on no machine
    compiled = compile_graph(branches)
    del branches  # OpenVINO has its own copy, and a codebook may be large
    name = original.graph.input[0].name
    fit_values = _measure(compiled, images, preprocessing, name)
    held_out_values = _measure(compiled, held_out, preprocessing, name)
    tensors = constants(calibrated)
    channels = changed = 0
    for node in layers:
        fit, check = (_Shifts.of(values, node.name) for values in (fit_values, held_out_values))
        shift = trimmed_mean(fit.off, fit.weights).clip(-fit.spread, fit.spread)
        helps = check.error(shift) < check.error(np.zeros_like(shift))
        channels += len(shift)
        changed += int(helps.sum())
        bias = numpy_helper.to_array(tensors[node.input[2]])
        # Another layer, with another shift or none, may share this bias: each gets its own.
        own = f"{node.name}/bias"
        corrected = (bias - np.where(helps, shift, 0.0)).astype(bias.dtype)
        calibrated.graph.initializer.append(numpy_helper.from_array(corrected, own))
        node.input[2] = own
    drop_unused(calibrated)  # biases that no layer reads any more
    return CorrectedBiases(len(layers), channels, changed)


@dataclass(frozen=True)
class _Shifts:
    """By how much a layer's channels are off, in some images."""

    off: Floats  # [M, channels]
    weights: Floats  # [M], sum 1: less where the layer's output is larger than the median
    spread: Floats  # [channels]: standard deviation of the layer's output

    @classmethod
    def of(cls, values: dict[str, Floats], layer: str) -> _Shifts:
        """The shifts of ``layer``, from the measured values of all layers."""
        exact, squares = values[f"{layer}/mean"], values[f"{layer}/square"]
        size = squares.mean(axis=1)
        weights = 1 / np.maximum(size, max(float(np.median(size)), 1e-30))
        variance = squares.mean(axis=0) - np.square(exact.mean(axis=0))
        return cls(
            values[f"{layer}/int8"] - exact, weights / weights.sum(), np.sqrt(variance.clip(0))
        )

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


def _measure(
    compiled: CompiledGraph, images: NDArray[np.uint8], preprocessing: Preprocessing, name: str
) -> dict[str, Floats]:
    """Every output by name, for every image: [M, channels]."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for start in range(0, len(images), 8 * BATCH):
        block = images[start : start + 8 * BATCH]
        batches: list[dict[str, NDArray[Any]]] = [
            {name: preprocessing.normalize(block[at : at + BATCH])}
            for at in range(0, len(block), BATCH)
        ]
        for outputs in run_compiled(compiled, batches):
            for output, value in outputs.items():
                parts.setdefault(output, []).append(value)
    return {output: np.concatenate(values).astype(np.float64) for output, values in parts.items()}


def _layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Quantized ``Conv`` and ``Gemm`` nodes with a bias."""
    graph = Graph(model)
    return [
        node
        for node in graph.nodes
        if node.op_type in ("Conv", "Gemm")
        and len(node.input) > 2
        and node.input[2] in graph.constants
        and len(graph.constants[node.input[2]].dims) == 1
        and graph.is_quantized(node.input[0])
    ]


def _with_branches(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, layers: list[onnx.NodeProto]
) -> onnx.ModelProto:
    """The float graph with an INT8 twin beside every layer; outputs are means over positions.

    A twin branches off at the float value that the layer's Q/DQ pair rounds, so it follows the
    same nodes as in the deployed graph. Where that is cheaper, it convolves the mean of its inputs.
    """
    graph = Graph(calibrated)
    model = copied(original)
    del model.graph.output[:]
    needed: dict[str, onnx.TensorProto] = {}
    repeated = (*PAIR, *PASS_THROUGH)

    stored = constants(original)
    shapes = {  # of the weights of the convolutions whose inputs can be averaged
        node.name: stored[node.input[1]].dims
        for node in original.graph.node
        if node.op_type == "Conv"
        and node.input[1] in stored
        and can_average(node, stored[node.input[1]].dims)
    }

    def copy(node: onnx.NodeProto, prefix: str) -> onnx.NodeProto:
        branch = onnx.NodeProto()
        branch.CopyFrom(node)
        branch.name = f"{prefix}{node.name}"
        begins = node.op_type == "QuantizeLinear"
        for place, value in enumerate(node.input):
            if value in graph.constants:
                needed[value] = graph.constants[value]
                branch.input[place] = f"int8/{value}"
            elif not begins and value in graph.producer:
                source = graph.producer[value]
                if source.op_type in repeated:
                    branch.input[place] = copy(source, prefix).output[0]
        branch.output[:] = [f"{prefix}{value}" for value in node.output]
        if node.name in shapes:
            average_inputs(model, branch, shapes[node.name])
        model.graph.node.append(branch)
        return branch

    def add_output(source: str, name: str, positions: bool) -> None:
        if positions:
            reduce_over(model, "ReduceMean", source, [2, 3], name, keep=False)
        else:
            model.graph.node.append(helper.make_node("Identity", [source], [name], name=name))
        add_outputs(model, [name])

    for node in layers:
        branch = copy(node, f"{node.name}/")
        positions = node.op_type == "Conv"
        square = f"{node.name}/squared"
        model.graph.node.append(
            helper.make_node("Mul", [node.output[0]] * 2, [square], name=square)
        )
        add_output(branch.output[0], f"{node.name}/int8", positions)
        add_output(node.output[0], f"{node.name}/mean", positions)
        add_output(square, f"{node.name}/square", positions)
    for value, tensor in needed.items():
        stored = model.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = f"int8/{value}"
    return model
