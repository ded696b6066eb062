"""Which channels of a graph of convolutions belong together: where one goes, all of them must.

Values [batch, channels, height, width] that meet channel by channel form a group. What an operator
does to channels has to be known for a group to lose one; any other operator fixes the groups that
it reads and writes, and so do the graph's inputs and outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.graph.view import Graph, attributes, has_bodies

Mask = NDArray[np.bool_]  # of a group's channels
# Each channel by itself, and 0 becomes 0.
_KEEPS_ZERO: Final = frozenset(
    [
        *("Abs", "AveragePool", "Celu", "Elu", "Erf", "Gelu", "GlobalAveragePool", "GlobalMaxPool"),
        *("HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Softsign", "Tanh"),
    ]
)
_BY_CHANNEL: Final = frozenset(["Sigmoid", "HardSigmoid", "Softplus", "Exp"])  # 0 does not stay
_ARITHMETIC: Final = frozenset(["Add", "Sub", "Mul", "Div"])


@dataclass(frozen=True)
class Stored:
    """A stored tensor that has the channels of a value's group along one of its axes."""

    tensor: str
    axis: int
    value: str


class Channels:
    """The groups of channels of a graph whose values' shapes are recorded."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = Graph(model)
        self._counts = _channel_counts(model, ranks=(2, 4))
        self._maps = set(_channel_counts(model, ranks=(4,)))
        self._parent: dict[str, str] = {}
        self._fixed: set[str] = set()
        self._understood: set[str] = set()  # results of operators whose channels are known
        self.stored: list[Stored] = []
        self.read: list[str] = []  # the values whose channels a layer sums up
        ends = [value.name for value in (*model.graph.input, *model.graph.output)]
        self._fix(ends)
        self._ends = set(ends)
        if has_bodies(model):
            self._fix(self._counts)
        for node in self._graph.nodes:
            if self._follow(node):
                self._understood.add(node.output[0])
            else:
                self._fix([*node.input, *node.output])

    def group(self, value: str) -> str:
        """The name of the group of a value."""
        while (parent := self._parent.get(value, value)) != value:
            value = parent
        return value

    def count(self, value: str) -> int:
        """The number of channels of a value."""
        return self._counts[value]

    def groups(self) -> dict[str, int]:
        """The number of channels of each group that may lose some."""
        fixed = {self.group(value) for value in self._fixed}
        roots = {self.group(entry.value) for entry in self.stored}
        return {root: self._counts[root] for root in sorted(roots - fixed)}

    def convolutions(self) -> list[onnx.NodeProto]:
        """Those whose outputs are in groups that may lose channels, in the graph's order."""
        groups = self.groups()
        return [
            node
            for node in self._graph.nodes
            if node.op_type == "Conv" and self.group(node.output[0]) in groups
        ]

    def zeros(self, of_convolution: Callable[[onnx.NodeProto, Mask], Mask]) -> dict[str, Mask]:
        """The channels of each value that are zero whatever the image.

        ``of_convolution`` tells those of a convolution's output, of those of its input.
        """
        zeros = {name: np.zeros(count, bool) for name, count in self._counts.items()}
        for node in self._graph.nodes:
            name, kind = node.output[0], node.op_type
            if name not in self._understood:
                continue
            if kind == "Conv":
                zeros[name] = of_convolution(node, zeros[node.input[0]])
            elif kind in _ARITHMETIC:
                zeros[name] = self._zero_result(node, zeros)
            elif kind not in _BY_CHANNEL and (kind != "Clip" or self._clips_around_zero(node)):
                zeros[name] = zeros[node.input[0]]
        return zeros

    def weights(self, name: str) -> NDArray[Any] | None:
        """A stored tensor's values."""
        tensor = self._graph.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _follow(self, node: onnx.NodeProto) -> bool:
        """Note what ``node`` does to channels, if that is known."""
        kind, inputs = node.op_type, [name for name in node.input if name]
        if len(node.output) != 1 or not inputs:
            return False
        if kind in _ARITHMETIC:
            return self._follow_arithmetic(node)
        if node.input[0] in self._graph.constants:
            return False
        if kind == "Conv":
            return self._follow_convolution(node)
        if kind == "Gemm":
            return self._follow_product(node)
        if any(name not in self._graph.constants for name in inputs[1:]):
            return False
        if kind in _KEEPS_ZERO or kind in _BY_CHANNEL or kind in ("Clip", "MaxPool"):
            return self._tie([inputs[0], node.output[0]])
        positions = (kind == "Pad" and self._pads_with_zeros(node)) or (
            kind == "ReduceMean" and self._reduces_positions(node)
        )
        return positions and self._tie([inputs[0], node.output[0]])

    def _follow_convolution(self, node: onnx.NodeProto) -> bool:
        source, weight, *bias = (name for name in node.input if name)
        tensor, result = self._graph.constants.get(weight), node.output[0]
        if tensor is None or not self._is_own(weight) or not all(map(self._is_own, bias)):
            return False
        if self._counts.get(source) is None or self._counts.get(result) != tensor.dims[0]:
            return False
        groups = attributes(node).get("group", 1)
        if groups == 1:
            self.stored.append(Stored(weight, 1, source))
            self.read.append(source)
        elif not groups == tensor.dims[0] == self._counts[source]:
            return False
        else:
            self._tie([source, result])
        self.stored += [Stored(name, 0, result) for name in (weight, *bias)]
        return True

    def _follow_product(self, node: onnx.NodeProto) -> bool:
        """A linear layer sums up channels; its own outputs stay."""
        source, weight, *bias = (name for name in node.input if name)
        options = attributes(node)
        if options.get("transA", 0) or not self._is_own(weight) or source not in self._counts:
            return False
        self.stored.append(Stored(weight, 1 if options.get("transB", 0) else 0, source))
        self.read.append(source)
        self._fix([node.output[0], *(name for name in bias if name in self._counts)])
        return True

    def _follow_arithmetic(self, node: onnx.NodeProto) -> bool:
        result = node.output[0]
        constants = [name for name in node.input if name in self._graph.constants]
        values = [name for name in node.input if name not in self._graph.constants]
        if node.op_type == "Div" and constants != node.input[1:]:
            return False
        if not self._maps.issuperset([*values, result]) or not self._tie([*values, result]):
            return False
        return all(self._note_constant(name, result) for name in constants)

    def _note_constant(self, name: str, value: str) -> bool:
        """Whether a constant is a number, or one for each channel of ``value``."""
        dims = list(self._graph.constants[name].dims)
        axis, size = len(dims) - 3, math.prod(dims)
        if size == 1:
            return True
        if axis < 0 or not dims[axis] == size == self._counts[value] or not self._is_own(name):
            return False
        self.stored.append(Stored(name, axis, value))
        return True

    def _zero_result(self, node: onnx.NodeProto, zeros: dict[str, Mask]) -> Mask:
        masks: list[Mask] = []
        for name in node.input:
            constant = self.weights(name)
            zero = zeros[name] if constant is None else (constant == 0).reshape(-1)
            masks.append(np.broadcast_to(zero, self._counts[node.output[0]]))
        if node.op_type == "Div":  # 0 / 0 is not 0
            return np.logical_and(masks[0], ~masks[1])
        combine = np.logical_or if node.op_type == "Mul" else np.logical_and
        return combine(masks[0], masks[1])

    def _clips_around_zero(self, node: onnx.NodeProto) -> bool:
        bounds = [self.weights(name) if name else None for name in [*node.input[1:], "", ""][:2]]
        least, most = bounds
        return (least is None or least.item() <= 0) and (most is None or most.item() >= 0)

    def _pads_with_zeros(self, node: onnx.NodeProto) -> bool:
        value = self.weights(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        pads = self.weights(node.input[1])
        return (
            attributes(node).get("mode", b"constant") == b"constant"
            and (value is None or not value.any())
            and pads is not None
            and len(pads) == 8
            and not pads[[0, 1, 4, 5]].any()
        )

    def _reduces_positions(self, node: onnx.NodeProto) -> bool:
        axes = self.weights(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and sorted(axes.astype(int) % 4) == [2, 3]

    def _is_own(self, name: str) -> bool:
        """Whether a tensor is stored for one reader alone."""
        readers = self._graph.readers
        return name in self._graph.constants and name not in self._ends and len(readers[name]) == 1

    def _tie(self, values: list[str]) -> bool:
        """Join the groups of values that have the same number of channels."""
        if len({self._counts.get(name) for name in values}) != 1 or values[0] not in self._counts:
            return False
        first, *others = (self.group(name) for name in values)
        for root in others:
            self._parent[root] = first
        self._parent.setdefault(first, first)
        return True

    def _fix(self, values: Iterable[str]) -> None:
        self._fixed.update(name for name in values if name in self._counts)


def _channel_counts(model: onnx.ModelProto, ranks: Collection[int]) -> dict[str, int]:
    """Of all values [batch, channels] or [batch, channels, height, width]."""
    counts = {}
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) in ranks and dims[1].dim_value:
            counts[value.name] = dims[1].dim_value
    return counts
