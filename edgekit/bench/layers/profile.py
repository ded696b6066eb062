"""Where the time goes: milliseconds of every layer, and the shares of lookup and head.

Profiling slows inference down, so these times explain a latency but do not replace it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.bench.options import BenchOptions
from edgekit.bench.results import Layers, LayerTime, PartTime
from edgekit.bundle.store import Bundle
from edgekit.runtime.runner import RunSettings, run_settings
from edgekit.targets.operators import LOOKUP, LOOKUP_NODE

Part = Literal[
    "backbone", "codebook lookup", "attention head", "lookup and head, fused", "unassigned"
]

_CALLS: Final = 50
_MODULES: Final = {
    "openvino": "edgekit.bench.layers.openvino",
    "onnxruntime": "edgekit.bench.layers.onnxruntime",
    "tensorrt": "edgekit.bench.layers.tensorrt",
}
# Names of the lookup's operators: the node, and its body where a runtime expands it.
_LOOKUP_NAMES: Final = (LOOKUP_NODE, LOOKUP)


@dataclass(frozen=True)
class Layer:
    """One step of an inference as the runtime executes it."""

    name: str
    kind: str
    milliseconds: float
    part: Part


@dataclass(frozen=True)
class Profile:
    """All layers of an inference, in the order of their execution."""

    layers: tuple[Layer, ...]
    parts_from: str
    """How layers were assigned to parts, or why not all were."""


class _Module(Protocol):
    """What every module in `_MODULES` has."""

    def profile(
        self, bundle: Bundle, settings: RunSettings, images: NDArray[np.uint8], calls: int
    ) -> Profile:
        """The mean times of ``calls`` inferences."""


def layer_times(bundle: Bundle, options: BenchOptions, images: NDArray[np.uint8]) -> Layers:
    """The layers for the document, slowest first, and the time of each part of the network."""
    manifest = bundle.manifest
    settings = run_settings(
        manifest.target, threads=options.threads, hint="latency", batch=options.batch
    )
    module = cast(_Module, importlib.import_module(_MODULES[manifest.target.backend]))
    profile = module.profile(bundle, settings, images, _CALLS)
    total = sum(layer.milliseconds for layer in profile.layers) or 1.0
    parts: dict[str, float] = {}
    for layer in profile.layers:
        parts[layer.part] = parts.get(layer.part, 0.0) + layer.milliseconds
    slowest = sorted(profile.layers, key=lambda layer: -layer.milliseconds)
    return Layers(
        calls=_CALLS,
        total_ms=total,
        parts={name: PartTime(value, value / total) for name, value in sorted(parts.items())},
        parts_from=profile.parts_from,
        layers=tuple(
            LayerTime(**asdict(layer), share=layer.milliseconds / total) for layer in slowest
        ),
    )


def is_lookup(name: str) -> bool:
    """Whether a layer of this name belongs to the codebook lookup."""
    return any(part in name for part in _LOOKUP_NAMES)


def parts_of_graph(
    nodes: Iterable[tuple[str, Sequence[str]]], lookup: Collection[str]
) -> dict[str, Part]:
    """The part that each node of a graph belongs to.

    ``nodes`` are names with the names of the nodes they read from, in execution order; ``lookup``
    names those of the codebook lookup. Everything the lookup depends on is the backbone; the rest
    is the attention head with its classifier. Without a lookup, all of it is the backbone.
    """
    reads = dict(nodes)
    if not lookup:
        return dict.fromkeys(reads, "backbone")
    before: set[str] = set()
    waiting = [source for name in lookup for source in reads.get(name, ())]
    while waiting:
        name = waiting.pop()
        if name not in before and name not in lookup:
            before.add(name)
            waiting += reads.get(name, ())
    parts: dict[str, Part] = {}
    for name in reads:
        if name in lookup:
            parts[name] = "codebook lookup"
        else:
            parts[name] = "backbone" if name in before else "attention head"
    return parts


def parts_of_onnx(path: str) -> Callable[[str], Part | None] | None:
    """Assigns the names of an ONNX file's nodes to parts; None where package onnx is missing."""
    try:
        import onnx
    except ModuleNotFoundError:
        return None
    from edgekit.graph.view import Graph

    graph = Graph(onnx.load(path, load_external_data=False))
    producer = graph.producer
    nodes = [
        (node.name, [producer[value].name for value in node.input if value in producer])
        for node in graph.nodes
    ]
    parts = parts_of_graph(nodes, {name for name, _ in nodes if is_lookup(name)})
    return parts.get
