"""Measures what every layer's 8-bit inputs and float outputs are on average, image by image.

All of it is computed beside the float graph, so whoever runs that graph has it by the way. The
weights do not enter, and may change meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgekit.graph.padding import pads_of
from edgekit.graph.reductions import reduce_over
from edgekit.graph.view import Graph, attributes
from edgekit.quantize.emulation import represented_shape
from edgekit.quantize.mean_patches import add_mean_patch

Floats = NDArray[np.float64]
Values = dict[str, NDArray[Any]]  # by name, of every image


@dataclass(frozen=True, eq=False)
class MeansGraph:
    """What computes the means of some layers, to be added to the float graph."""

    added: onnx.GraphProto
    layers: tuple[str, ...]  # names of convolutions and products that have a bias and 8-bit inputs

    @property
    def values(self) -> list[str]:
        """The names of the values that make up the means."""
        return [name for layer in self.layers for name in _names(layer)]


@dataclass(frozen=True, eq=False)
class MeasuredMeans:
    """The values of a `MeansGraph`, in two sets of images."""

    layers: tuple[str, ...]
    values: Values  # in the images that shifts are computed from
    held_out: Values  # in those that decide which shifts are kept


@dataclass(frozen=True)
class LayerMeans:
    """One layer's means in each of some images."""

    inputs: Floats  # [M, ...]: what the deployed graph's weights are multiplied by
    outputs: Floats  # [M, channels]: the float model's
    squares: Floats  # [M, channels]: of the outputs' squares

    @classmethod
    def of(cls, layer: str, values: Values) -> LayerMeans:
        """Take a layer's means out of all measured values."""
        inputs, outputs, squares = (values[name].astype(np.float64) for name in _names(layer))
        return cls(inputs, outputs, squares)


def graph_of_means(calibrated: onnx.ModelProto, original: onnx.ModelProto) -> MeansGraph:
    """What measures, beside ``original``, all layers of ``calibrated`` with biases to correct.

    The 8-bit inputs branch off at the float value that a layer's Q/DQ pair rounds, and follow the
    same nodes as in the deployed graph.
    """
    model = onnx.ModelProto(opset_import=original.opset_import)  # what is added, and no more
    branches = _Branches(calibrated, original, model.graph)
    exact = {node.name: node for node in original.graph.node}
    layers = []
    for node in branches.calibrated.nodes:
        before = exact.get(node.name)
        if before is None or not _has_a_bias_to_correct(node, before, branches.calibrated):
            continue
        inputs, outputs, squares = _names(node.name)
        source, made = branches.value(node.input[0]), before.output[0]
        square = f"{squares}/all"
        model.graph.node.append(helper.make_node("Mul", [made, made], [square], name=square))
        if node.op_type == "Conv":
            shape = represented_shape(branches.calibrated, node.input[1])
            assert shape is not None
            add_mean_patch(model, before, shape[2:], source, inputs)
            reduce_over(model, "ReduceMean", made, [2, 3], outputs, keep=False)
            reduce_over(model, "ReduceMean", square, [2, 3], squares, keep=False)
        else:
            for value, name in ((source, inputs), (made, outputs), (square, squares)):
                model.graph.node.append(helper.make_node("Identity", [value], [name], name=name))
        layers.append(node.name)
    return MeansGraph(model.graph, tuple(layers))


def _has_a_bias_to_correct(node: onnx.NodeProto, before: onnx.NodeProto, graph: Graph) -> bool:
    """Whether it is a quantized convolution or product whose mean output can be computed.

    ``before`` is the same node of the float graph.
    """
    if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
        return False
    if not graph.is_quantized(node.input[0]) or node.input[2] not in graph.constants:
        return False
    shape = represented_shape(graph, node.input[1])
    if shape is None or len(graph.constants[node.input[2]].dims) != 1:
        return False
    if node.op_type == "Conv":
        return len(shape) == 4 and pads_of(before) is not None
    options = attributes(node)
    return not options.get("transA", 0) and options.get("beta", 1.0) != 0


class _Branches:
    """Computes 8-bit values of the calibrated graph beside the float one, each only once."""

    def __init__(
        self, calibrated: onnx.ModelProto, original: onnx.ModelProto, added: onnx.GraphProto
    ) -> None:
        self.calibrated = Graph(calibrated)
        self._exact = Graph(original).producer
        self._graph = added
        self._made: set[str] = set()

    def value(self, name: str, rounded: bool = False) -> str:
        """The name that a value of the calibrated graph has in the float one.

        ``rounded``: what rounds it has been passed, and the float model's own value may stand here.
        """
        graph = self.calibrated
        producer = graph.producer.get(name)
        if name not in graph.constants and (producer is None or (rounded and name in self._exact)):
            return name
        own = f"edgekit/int8/{name}"
        if own in self._made:
            return own
        self._made.add(own)
        if producer is None:
            tensor = self._graph.initializer.add()
            tensor.CopyFrom(graph.constants[name])
            tensor.name = own
            return own
        node = onnx.NodeProto()
        node.CopyFrom(producer)
        node.name = f"edgekit/int8/{producer.name}"
        rounded = rounded or producer.op_type == "QuantizeLinear"
        # Other inputs than the first say how: a shape, a scale.
        node.input[:] = [
            self.value(each, rounded or place > 0) if each else ""
            for place, each in enumerate(producer.input)
        ]
        node.output[:] = [f"edgekit/int8/{each}" if each else "" for each in producer.output]
        self._graph.node.append(node)
        return own


def _names(layer: str) -> tuple[str, str, str]:
    inputs, outputs, squares = (
        f"edgekit/means/{layer}/{what}" for what in ("inputs", "outputs", "squares")
    )
    return inputs, outputs, squares
