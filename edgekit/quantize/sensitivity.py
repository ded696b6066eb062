"""Which layers lose most when they alone are in INT8.

For each layer, a graph with only this layer's Q/DQ pairs runs on the probe and is compared with the
float graph. What precedes the layer is float and the same for all layers, so it is computed once:
where a single tensor cuts the graph in two (at the end of a block), its values for the whole probe
are stored, and later layers start from there. That halves the work. A tensor that would need more
than `STORED_BYTES` is skipped, and layers start from the last one that fits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.core.console import Console
from edgekit.core.progress import track
from edgekit.graph.layers import float_layers, quantized_layers, weight_names, with_float
from edgekit.graph.variants import lookup_node
from edgekit.graph.view import (
    PASS_THROUGH,
    Graph,
    constants,
    copied,
    drop_unused,
    set_nodes,
    with_outputs,
)
from edgekit.metrics.codes import code_counts
from edgekit.quantize.engine import BATCH, answers, compile_graph, run_compiled
from edgekit.quantize.probe import Probe, difference
from edgekit.quantize.results import CodebookUse, LayerLoss, Sensitivity
from edgekit.runtime.answers import Answers, join

STORED_BYTES = 1 << 30  # of activations at a cut, for the whole probe


def measure(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, probe: Probe, console: Console
) -> Sensitivity:
    """Rank the layers of NNCF's ``calibrated`` graph by the harm that each does on its own."""
    start = time.monotonic()
    flat = probe.flat()
    reference = answers(original, flat, probe.preprocessing)
    everything = answers(calibrated, flat, probe.preprocessing)
    names = quantized_layers(calibrated)
    weights = weight_names(original)
    operations = {node.name: node.op_type for node in original.graph.node}
    clipped = clipped_shares(calibrated, original, probe)
    walk = _Walk(original, probe)
    losses = []
    for name in track(console, names, len(names), "sensitivity, layer by layer"):
        alone = with_float(calibrated, original, set(names) - {name})
        loss = difference(probe, reference, walk.answers(alone, name))
        losses.append(LayerLoss(name, weights.get(name, ""), operations[name], clipped[name], loss))
    losses.sort(key=lambda layer: -layer.harm)
    return Sensitivity(
        layers=tuple(losses),
        whole=difference(probe, reference, everything),
        codes=_codebook_use(original, reference, everything),
        not_quantized=tuple(weights.get(name, name) for name in float_layers(calibrated)),
        images=len(probe.pixels),
        variants=probe.pixels.shape[1],
        seconds=time.monotonic() - start,
    )


def clipped_shares(
    calibrated: onnx.ModelProto, original: onnx.ModelProto, probe: Probe, images: int = 64
) -> dict[str, float]:
    """For each layer, the largest share of an input's values that its INT8 range clips.

    Counted on the float model's activations for the first ``images`` images, all variants.
    """
    ranges = _ranges(calibrated)
    graph = Graph(calibrated)
    sources_of = {
        node.name: [
            graph.unquantized(name, {})
            for name in node.input[:2]
            if graph.is_quantized(name) and not graph.is_constant(name)
        ]
        for node in calibrated.graph.node
        if node.name in set(quantized_layers(calibrated))
    }
    sources_of = {
        name: [_at_its_pair(value, graph) for value in values_read]
        for name, values_read in sources_of.items()
    }
    sources = sorted({source for values_read in sources_of.values() for source in values_read})
    cut, total = dict.fromkeys(sources, 0), dict.fromkeys(sources, 0)
    inner = [name for name in sources if name != original.graph.input[0].name]
    compiled = compile_graph(with_outputs(original, inner))
    pixels = probe.pixels[:images].reshape(-1, *probe.pixels.shape[2:])
    for at in range(0, len(pixels), BATCH):
        batch = {
            original.graph.input[0].name: probe.preprocessing.normalize(pixels[at : at + BATCH])
        }
        values = {**run_compiled(compiled, [batch])[0], **batch}
        for name in sources:
            low, high = ranges[name]
            cut[name] += int(np.count_nonzero((values[name] < low) | (values[name] > high)))
            total[name] += values[name].size
    return {
        name: max((cut[source] / total[source] for source in values_read), default=0.0)
        for name, values_read in sources_of.items()
    }


class _Walk:
    """Moves through the float graph once, from cut to cut, and runs what follows a cut."""

    def __init__(self, original: onnx.ModelProto, probe: Probe) -> None:
        self._original = original
        self._at = original.graph.input[0].name
        flat = probe.flat()
        self._values: Any = _Normalized(flat, probe)
        order = {node.name: place for place, node in enumerate(original.graph.node)}
        self._cuts = [
            (order[maker], name) for maker, name in cut_points(original) if maker in order
        ]
        sizes = _sizes(original, [name for _, name in self._cuts], probe)
        self._cuts = [cut for cut in self._cuts if sizes[cut[1]] * len(flat) <= STORED_BYTES]
        self._order = order

    def answers(self, model: onnx.ModelProto, layer: str) -> Answers:
        """The answers of ``model``, which is the float model up to ``layer``."""
        before = [name for place, name in self._cuts if place < self._order[layer]]
        if before and before[-1] != self._at:
            self._advance(before[-1])
        suffix = segment(model, self._at, None, self._values.shape)
        compiled = compile_graph(suffix)
        parts: list[Answers] = []
        for block in self._blocks():
            parts.extend(Answers.of(part) for part in run_compiled(compiled, block))
        return join(parts)

    def _advance(self, name: str) -> None:
        compiled = compile_graph(segment(self._original, self._at, name, self._values.shape))
        values: list[NDArray[Any]] = []
        for block in self._blocks():
            values.extend(part[name] for part in run_compiled(compiled, block))
        self._values, self._at = np.concatenate(values), name

    def _blocks(self) -> list[list[dict[str, NDArray[Any]]]] | Any:
        """Blocks of batches: all images at once, normalized, would take too much memory."""
        for start in range(0, len(self._values), 32 * BATCH):
            end = min(start + 32 * BATCH, len(self._values))
            yield [
                {self._at: self._values[at : min(at + BATCH, end)]}
                for at in range(start, end, BATCH)
            ]


class _Normalized:
    """The probe's images, normalized on demand: stored pixels take a quarter of the memory."""

    def __init__(self, flat: NDArray[np.uint8], probe: Probe) -> None:
        self._flat, self._normalize = flat, probe.preprocessing.normalize
        self.shape = (len(flat), 3, *flat.shape[1:3])

    def __len__(self) -> int:
        return len(self._flat)

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        return self._normalize(self._flat[part])


def cut_points(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Where a single tensor cuts the graph in two: (name of its node, tensor), in order."""
    last: dict[str, int] = {}
    for place, node in enumerate(model.graph.node):
        for name in node.input:
            last[name] = place
    ends = {output.name for output in model.graph.output}
    live = {value.name for value in model.graph.input} - set(constants(model))
    cuts = []
    for place, node in enumerate(model.graph.node):
        live = {name for name in live if last.get(name, -1) > place or name in ends}
        live.update(name for name in node.output if last.get(name, -1) > place or name in ends)
        if len(live) == 1 and node.output[0] in live and node.output[0] not in ends:
            cuts.append((node.name, node.output[0]))
    return cuts


def segment(
    model: onnx.ModelProto, start: str, end: str | None, shape: Sequence[int]
) -> onnx.ModelProto:
    """The part of the graph that computes ``end`` (None: the outputs) from ``start``."""
    part = copied(model)
    graph = part.graph
    set_nodes(graph, (node for node in graph.node if start not in node.output))
    if start != graph.input[0].name:
        del graph.input[:]
        kind = onnx.TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(start, kind, ["batch", *shape[1:]]))
    if end is not None:
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None))
    drop_unused(part)
    return part


def _sizes(model: onnx.ModelProto, names: Sequence[str], probe: Probe) -> dict[str, int]:
    """Bytes of each tensor for one image."""
    compiled = compile_graph(with_outputs(model, names))
    image = probe.preprocessing.normalize(probe.flat()[:1])
    (tensors,) = run_compiled(compiled, [{model.graph.input[0].name: image}])
    return {name: tensors[name].nbytes for name in names}


def _ranges(model: onnx.ModelProto) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The lowest and highest value that each quantized activation keeps, shaped to broadcast."""
    stored = constants(model)
    ranges = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in stored:
            continue
        scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
        limits = np.iinfo(zero.dtype)
        shift = zero.astype(np.float32)
        # Half a step beyond the last level still rounds to it.
        low = (limits.min - 0.5 - shift) * scale
        high = (limits.max + 0.5 - shift) * scale
        if scale.size > 1:
            low, high = (value.reshape(1, -1, 1, 1) for value in (low, high))
        ranges[node.input[0]] = (low, high)
    return ranges


def _at_its_pair(name: str, graph: Graph) -> str:
    """The value whose range ``name`` shares: what was quantized before poolings or flattening."""
    source = name.removesuffix("/float")
    while source in graph.producer and graph.producer[source].op_type in PASS_THROUGH:
        node = graph.producer[source]
        if not graph.is_quantized(node.input[0]):
            break
        source = graph.unquantized(node.input[0], {})
    return source


def _codebook_use(
    original: onnx.ModelProto, reference: Answers, candidate: Answers
) -> CodebookUse | None:
    size = codebook_size(original)
    if reference.code is None or candidate.code is None or size is None:
        return None
    used = [
        int(np.count_nonzero(code_counts(codes, size)))
        for codes in (reference.code, candidate.code)
    ]
    return CodebookUse(size, used[0], used[1])


def codebook_size(model: onnx.ModelProto) -> int | None:
    """How many codewords the graph's lookup chooses from."""
    node = lookup_node(model)
    return None if node is None else int(constants(model)[node.input[1]].dims[0])
