"""A Q/DQ ONNX graph as a torch module whose weights and scales learn, and back again.

Training runs the graph that will be deployed, node by node, so there is nothing to convert
afterwards: `Network.to_onnx` writes what was learned into the initializers it came from.
The exporter folds batch norms into convolutions before calibration, so none is left to learn or to
drift. For a graph without Q/DQ pairs, the same module is the float model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgekit.core.errors import EdgekitError
from edgekit.graph.lookup import is_lookup
from edgekit.graph.two_of_four import is_two_of_four
from edgekit.graph.view import PRODUCTS, attributes, constants, copied
from edgekit.model.codebook import best_two
from edgekit.quantize.qat.fake_quantize import fake_quantize
from edgekit.quantize.qat.float_weights import by_shape, original_of
from edgekit.quantize.qat.operators import is_supported, run_operator, unsupported

_HALF_RANGE = 64  # largest level of weights for CPUs without VNNI


class NetworkOutput(NamedTuple):
    """What one forward pass yields; all but the logits are None without a codebook."""

    logits: Tensor  # [B, classes]
    code: Tensor | None  # [B] pooled, [B, P] spatial
    features: Tensor | None  # [M, D]: what is looked up, M = B or B * P
    scores: Tensor | None  # [M, N]: the code is where they are largest


# Takes the output's name, the pair's input over its scale, its output in levels, and the scale;
# returns the output.
Follow = Callable[[str, Tensor, Tensor, Tensor], Tensor]


class Values(dict[str, Tensor]):
    """The tensors of one forward pass by name."""

    follow: Follow | None = None


Step = Callable[["Network", Values], None]


@dataclass(frozen=True)
class Pair:
    """A Q/DQ pair: the name of its scale's initializer and its levels minus the zero-point."""

    scale: str
    low: int
    high: int
    axis: int | None  # None: one scale for the whole tensor


class Network(nn.Module):
    """The graph's outputs for normalized images [B, 3, H, W].

    All parameters are offsets from calibration, and 0 is exactly the calibrated network:
    ``weights`` and ``biases`` (of convolutions and products; float even where 8-bit ones are
    deployed) in 8-bit levels of their channel, ``log_scales`` as the logarithm of each scale's
    factor, which cannot become negative. So one learning rate suits all: folded batch norms leave
    channels whose weights differ by orders of magnitude, and an Adam step that is negligible for
    one ruins another.
    The codebook and its tables are constants: a code keeps its meaning.
    """

    def __init__(self, graph: onnx.ModelProto, original: onnx.ModelProto | None = None) -> None:
        """``original`` is the float graph: its weights hold more than the 8-bit ones."""
        super().__init__()
        self._graph = graph
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        self.log_scales = nn.ParameterDict()
        self._quantized: dict[str, Pair] = {}  # by the name of the 8-bit initializer
        self._calibrated: set[str] = set()  # names of scales
        self._stored = constants(graph)
        self._originals = by_shape(original)
        self._inputs = [v.name for v in graph.graph.input if v.name not in self._stored]
        if len(self._inputs) != 1:
            raise EdgekitError(f"the graph has {len(self._inputs)} inputs, expected the images")
        self._starts: dict[str, str] = {}  # names of buffers with the calibrated values
        self._steps = self._compile()
        self._last_use = _last_uses(self._steps, [o.name for o in graph.graph.output])
        self._buffer_names: dict[str, str] = {}
        for name, tensor in self._stored.items():
            if name in self._used_constants:
                value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
                if value.is_floating_point():
                    self._buffer_names[name] = f"constant_{len(self._buffer_names)}"
                    self.register_buffer(self._buffer_names[name], value, persistent=False)
                else:
                    self._numbers[name] = value

    # ---- building -------------------------------------------------------------------------

    def _compile(self) -> list[tuple[tuple[str, ...], Step]]:
        """One function per node, with the names that it reads."""
        self._used_constants: set[str] = set()
        self._numbers: dict[str, Tensor] = {}
        steps: list[tuple[tuple[str, ...], Step]] = []
        self._pair_outputs: list[str] = []
        waiting: dict[str, tuple[str, Pair]] = {}  # Q whose DQ is still to come
        unknown: list[str] = []
        for node in self._graph.graph.node:
            options = attributes(node)
            if node.op_type == "QuantizeLinear":
                waiting[node.output[0]] = (node.input[0], self._pair(node, options))
            elif node.op_type == "DequantizeLinear":
                if node.input[0] in self._stored:
                    self._add_weight(node, options)
                    steps.append(((), _weight_step(node.input[0], node.output[0])))
                else:
                    if node.input[0] not in waiting:
                        raise EdgekitError(f"node {node.name}: a DequantizeLinear without its pair")
                    source, pair = waiting[node.input[0]]
                    self._pair_outputs.append(node.output[0])
                    steps.append(((source,), _pair_step(source, node.output[0], pair)))
            elif is_lookup(node):
                self._used_constants.add(node.input[1])
                steps.append(((node.input[0],), _lookup_step(node, options)))
            elif node.domain in ("", "ai.onnx") and is_supported(node.op_type):
                self._add_floats(node)
                steps.append((tuple(node.input), _operator_step(node, options)))
            else:
                unknown.append(node.op_type)
        if unknown:
            raise EdgekitError(unsupported(unknown))
        return steps

    def _pair(self, node: onnx.NodeProto, options: Mapping[str, Any]) -> Pair:
        scale = self._array(node.input[1], node)
        zero = self._array(node.input[2], node) if len(node.input) > 2 else np.zeros(1, np.uint8)
        if zero.dtype not in (np.int8, np.uint8) or len(np.unique(zero)) != 1:
            raise EdgekitError(f"node {node.name}: its zero-points are not one 8-bit number")
        shift, kind = int(zero.flat[0]), np.iinfo(zero.dtype)
        self._add_scale(node.input[1], scale)
        axis = None if scale.size == 1 else int(options.get("axis", 1))
        return Pair(node.input[1], kind.min - shift, kind.max - shift, axis)

    def _add_scale(self, name: str, scale: NDArray[np.float32]) -> None:
        if name not in self._calibrated:
            self._calibrated.add(name)
            self.log_scales[_key(name)] = nn.Parameter(torch.zeros(scale.shape))
            self._used_constants.add(name)

    def _add_weight(self, node: onnx.NodeProto, options: Mapping[str, Any]) -> None:
        """Make the float values of 8-bit weights learnable: the original ones where possible."""
        name = node.input[0]
        if name in self._quantized:
            return
        levels = self._array(name, node)
        scale = self._array(node.input[1], node).astype(np.float32)
        if levels.dtype != np.int8 or (
            len(node.input) > 2 and self._array(node.input[2], node).any()
        ):
            raise EdgekitError(f"node {node.name}: its weights are not int8 with zero-point 0")
        axis = None if scale.size == 1 else int(options.get("axis", 1)) % levels.ndim
        largest = int(np.abs(levels.astype(np.int16)).max(initial=0))
        limit = _HALF_RANGE if largest <= _HALF_RANGE else 127
        self._add_scale(node.input[1], scale)
        self._quantized[name] = Pair(node.input[1], -limit, limit, axis)
        spread = _along(torch.from_numpy(scale), axis, levels.ndim).numpy()
        self._learn(self.weights, name, original_of(levels, spread, self._originals), spread)

    def _add_floats(self, node: onnx.NodeProto) -> None:
        """Make weights and biases that stay float learnable; note which constants are read."""
        for position, name in enumerate(node.input):
            if name not in self._stored or not name:
                continue
            is_float = self._stored[name].data_type == onnx.TensorProto.FLOAT
            group = None
            if node.op_type in PRODUCTS and is_float and position:
                group = self.weights if position == 1 else self.biases
            if group is None:
                self._used_constants.add(name)
            elif _key(name) not in group:
                value = np.asarray(numpy_helper.to_array(self._stored[name]), np.float32)
                level = np.abs(value).max(initial=0) / 127
                self._learn(group, name, value, np.float32(level if level > 0 else 1e-3))

    def _learn(
        self,
        group: nn.ParameterDict,
        name: str,
        value: NDArray[np.float32],
        level: NDArray[np.float32] | np.float32,
    ) -> None:
        """Make a tensor learnable, in units of ``level``, which broadcasts."""
        key, place = _key(name), f"start_{len(self._starts)}"
        self._starts[key] = place
        self.register_buffer(place, torch.from_numpy(value.copy()), persistent=False)
        self.register_buffer(f"{place}_level", torch.tensor(np.array(level)), persistent=False)
        group[key] = nn.Parameter(torch.zeros(value.shape))
        if group is self.weights and any(is_two_of_four(value, axis) for axis in (0, 1)):
            # Without a gradient the zeros stay, and with them the pattern.
            kept = torch.from_numpy(value != 0)
            group[key].register_hook(lambda gradient: gradient * kept.to(gradient.device))

    def _array(self, name: str, node: onnx.NodeProto) -> NDArray[Any]:
        if name not in self._stored:
            raise EdgekitError(f"node {node.name}: {name} is not a stored constant")
        return np.asarray(numpy_helper.to_array(self._stored[name]))

    # ---- running --------------------------------------------------------------------------

    def forward(self, images: Tensor, follow: Follow | None = None) -> NetworkOutput:
        """Run the graph; ``follow`` sees every pair's output and returns what replaces it."""
        # On CPUs convolutions are faster in this layout, depthwise ones by far.
        values = Values({self._inputs[0]: images.contiguous(memory_format=torch.channels_last)})
        values.follow = follow
        for number, (_, step) in enumerate(self._steps):
            step(self, values)
            for name in self._last_use[number]:
                values.pop(name, None)
        return NetworkOutput(
            values["logits"], values.get("code"), values.get("#features"), values.get("#scores")
        )

    def read(self, values: Values, name: str) -> Tensor | None:
        """A node's input: computed, learned or constant."""
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._buffer_names:
            buffer: Tensor = getattr(self, self._buffer_names[name])
            return buffer
        if name in self._numbers:
            return self._numbers[name]
        if _key(name) in self._starts:
            return self.value(name)
        raise EdgekitError(f"the graph reads {name}, which no node computes")

    def value(self, name: str) -> Tensor:
        """The present value of a weight or bias, not rounded."""
        key = _key(name)
        start: Tensor = getattr(self, self._starts[key])
        level: Tensor = getattr(self, f"{self._starts[key]}_level")
        group = self.weights if key in self.weights else self.biases
        moved: Tensor = start + level * group[key]
        return moved

    def scale(self, name: str) -> Tensor:
        """A learned scale, in the shape in which the graph stores it."""
        base: Tensor = getattr(self, self._buffer_names[name])
        moved: Tensor = base * self.log_scales[_key(name)].exp()
        return moved

    @property
    def pair_outputs(self) -> list[str]:
        """Names of the tensors that come out of activations' Q/DQ pairs."""
        return list(self._pair_outputs)

    # ---- writing --------------------------------------------------------------------------

    @torch.no_grad()
    def to_onnx(self) -> onnx.ModelProto:
        """The graph with the learned weights, biases and scales."""
        graph = copied(self._graph)
        learned: dict[str, Tensor] = {name: self.scale(name) for name in self._calibrated}
        for tensor in graph.graph.initializer:
            name, key = tensor.name, _key(tensor.name)
            if name in self._quantized:
                learned[name] = self.levels(name)
            elif key in self._starts:
                learned[name] = self.value(name)
            if name in learned:
                value = learned[name].detach().cpu().contiguous().numpy()
                tensor.CopyFrom(numpy_helper.from_array(value, name))
        return graph

    def levels(self, name: str) -> Tensor:
        """The int8 levels of an 8-bit weight."""
        pair, weight = self._quantized[name], self.value(name)
        scale = _along(self.scale(pair.scale), pair.axis, weight.dim())
        rounded: Tensor = (weight / scale).round().clamp(pair.low, pair.high).to(torch.int8)
        return rounded

    def weight(self, name: str) -> Tensor:
        """An 8-bit weight as the graph's DequantizeLinear gives it."""
        pair, weight = self._quantized[name], self.value(name)
        scale = _along(self.scale(pair.scale), pair.axis, weight.dim())
        return fake_quantize(weight, scale, pair.low, pair.high)


def _weight_step(name: str, output: str) -> Step:
    def step(network: Network, values: Values) -> None:
        values[output] = network.weight(name)

    return step


def _pair_step(source: str, output: str, pair: Pair) -> Step:
    def step(network: Network, values: Values) -> None:
        x = network.read(values, source)
        assert x is not None
        scale = _along(network.scale(pair.scale), pair.axis, x.dim())
        if values.follow is None:
            values[output] = fake_quantize(x, scale, pair.low, pair.high)
        else:
            level = x / scale
            rounded = level.round().clamp(pair.low, pair.high)
            values[output] = values.follow(output, level, rounded, scale)

    return step


def _lookup_step(node: onnx.NodeProto, options: Mapping[str, Any]) -> Step:
    features_name, codebook_name = node.input
    outputs = list(node.output)
    metric = options.get("metric", b"dot").decode()

    def step(network: Network, values: Values) -> None:
        features, codebook = (
            network.read(values, features_name),
            network.read(values, codebook_name),
        )
        assert features is not None
        assert codebook is not None
        scores = features @ codebook.T
        if metric == "l2":
            scores = scores - codebook.square().sum(dim=1) / 2
        values["#features"], values["#scores"] = features, scores
        for name, output in zip(outputs, best_two(scores), strict=False):
            values[name] = output

    return step


def _operator_step(node: onnx.NodeProto, options: Mapping[str, Any]) -> Step:
    kind, names, outputs = node.op_type, list(node.input), list(node.output)

    def step(network: Network, values: Values) -> None:
        inputs = [network.read(values, name) for name in names]
        for name, output in zip(outputs, run_operator(kind, inputs, options), strict=False):
            values[name] = output

    return step


def _last_uses(steps: list[tuple[tuple[str, ...], Step]], outputs: list[str]) -> list[list[str]]:
    """For each step, the tensors that may be freed after it."""
    last: dict[str, int] = {}
    for number, (names, _) in enumerate(steps):
        last.update(dict.fromkeys(names, number))
    uses: list[list[str]] = [[] for _ in steps]
    for name, number in last.items():
        if name not in outputs:
            uses[number].append(name)
    return uses


def _key(name: str) -> str:
    """An initializer's name, made valid as the name of a torch parameter."""
    return name.replace(".", "/")


def _along(scale: Tensor, axis: int | None, rank: int) -> Tensor:
    """A scale shaped so that it broadcasts along its axis."""
    if axis is None:
        return scale.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return scale.reshape(shape)
