"""Corrects the biases of convolutions and of products that have one.

A depthwise convolution sums few products (9 for 3 x 3), so the rounding of its weights does not
average out: every channel's output is shifted, and all images alike. The shift's mean over the
calibration images is known, and the bias takes it back. Each layer is measured on the float
model's activations, all of them in one pass.

A mean says nothing where few images shape it. So an image in which a layer gives out more than
usual counts less (a corruption can make that ten times as much), the mean is trimmed and never
larger than the spread of the layer's output, and a channel keeps its bias unless the shift also
lowers the error on images that it was not computed from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.data.transforms import Preprocessing
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

Floats = NDArray[np.float64]

_TRIMMED = 0.1  # of the images, left out at either end


@dataclass(frozen=True)
class CorrectedBiases:
    """What a correction changed."""

    layers: int  # that have a bias and 8-bit inputs
    channels: int  # of all of them
    changed: int  # channels whose bias took the shift back


def correct_biases(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    preprocessing: Preprocessing,
) -> CorrectedBiases:
    """Change the biases of ``calibrated`` in place.

    ``original`` is the float graph that was calibrated; ``images``, which the shifts are computed
    from, and ``held_out``, which decide what is kept, are uint8 [M, height, width, 3].
    """
    layers = _layers(calibrated)
    if not layers:
        return CorrectedBiases(0, 0, 0)
    branches = _with_branches(calibrated, original, layers)
    make_float(branches)  # an integer's sum is exact in float32, and no machine's saturates
    compiled = compile_graph(branches)
    del branches  # OpenVINO has its own copy, and a codebook may be large
    name = original.graph.input[0].name
    fitted = _measure(compiled, images, preprocessing, name)
    other = _measure(compiled, held_out, preprocessing, name)
    tensors = constants(calibrated)
    channels = changed = 0
    for node in layers:
        seen, others = (_Shifts.of(values, node.name) for values in (fitted, other))
        shift = trimmed_mean(seen.off, seen.weights).clip(-seen.spread, seen.spread)
        helps = others.error(shift) < others.error(np.zeros_like(shift))
        channels += len(shift)
        changed += int(helps.sum())
        bias = numpy_helper.to_array(tensors[node.input[2]])
        # A bias may be shared with a layer that is not shifted: each gets its own.
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
    weights: Floats  # [M], sum 1: less where the layer gives out more than the median
    spread: Floats  # [channels]: standard deviation of what the layer gives out

    @classmethod
    def of(cls, values: dict[str, Floats], layer: str) -> _Shifts:
        """Of the measured values of ``layer``."""
        exact, squares = values[f"{layer}/mean"], values[f"{layer}/square"]
        size = squares.mean(axis=1)
        weights = 1 / np.maximum(size, max(float(np.median(size)), 1e-30))
        variance = squares.mean(axis=0) - np.square(exact.mean(axis=0))
        return cls(
            values[f"{layer}/int8"] - exact, weights / weights.sum(), np.sqrt(variance.clip(0))
        )

    def error(self, shift: Floats) -> Floats:
        """The mean square that a corrected channel is off by: [channels]."""
        result: Floats = self.weights @ np.square(self.off - shift)
        return result


def trimmed_mean(values: Floats, weights: Floats) -> Floats:
    """The weighted mean over axis 0, without the least and the greatest tenth.

    Of few values one at either end is left out, as long as one remains.
    """
    count = len(values)
    cut = min((count - 1) // 2, max(1, int(_TRIMMED * count)))
    kept = np.argsort(values, axis=0)[cut : count - cut]
    of = weights[kept]
    result: Floats = (np.take_along_axis(values, kept, axis=0) * of).sum(axis=0) / of.sum(axis=0)
    return result


def _measure(
    compiled: CompiledGraph, images: NDArray[np.uint8], preprocessing: Preprocessing, name: str
) -> dict[str, Floats]:
    """Every output for every image: [M, channels]."""
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
    """Quantized convolutions, and products of the form Gemm, with a bias."""
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
    """The float graph with every layer beside itself in INT8; outputs are means over positions.

    A branch begins at the float value that the layer's Q/DQ pair rounds, so that the layer stands
    behind the same nodes as in the deployed graph.
    """
    graph = Graph(calibrated)
    model = copied(original)
    del model.graph.output[:]
    needed: dict[str, onnx.TensorProto] = {}
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "biases/axes")
    model.graph.initializer.append(axes)
    repeated = (*PAIR, *PASS_THROUGH)

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
        model.graph.node.append(branch)
        return branch

    def give_out(source: str, name: str, positions: bool) -> None:
        inputs = [source, "biases/axes"] if positions else [source]
        kind = "ReduceMean" if positions else "Identity"
        attributes = {"keepdims": 0} if positions else {}
        model.graph.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        add_outputs(model, [name])

    for node in layers:
        branch = copy(node, f"{node.name}/")
        positions = node.op_type == "Conv"
        square = f"{node.name}/squared"
        model.graph.node.append(
            helper.make_node("Mul", [node.output[0]] * 2, [square], name=square)
        )
        give_out(branch.output[0], f"{node.name}/int8", positions)
        give_out(node.output[0], f"{node.name}/mean", positions)
        give_out(square, f"{node.name}/square", positions)
    for value, tensor in needed.items():
        stored = model.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = f"int8/{value}"
    return model
