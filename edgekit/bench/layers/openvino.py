"""Per-layer times of an OpenVINO bundle, from its own profiling (PERF_COUNT)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bench.layers.profile import Layer, Profile, is_lookup, parts_of_graph
from edgekit.bundle.store import Bundle
from edgekit.runtime.openvino import model_config
from edgekit.runtime.openvino_core import shared_core
from edgekit.runtime.openvino_devices import device_settings
from edgekit.runtime.runner import RunSettings
from edgekit.targets.operators import HEAD, LOOKUP

_NOT_LAYERS: Final = ("Parameter", "Constant", "Result")


def profile(
    bundle: Bundle, settings: RunSettings, images: NDArray[np.uint8], calls: int
) -> Profile:
    """The mean times of ``calls`` inferences of the model, compiled once more with profiling."""
    core = shared_core(bundle.plugins())
    model = core.read_model(str(bundle.folder / bundle.manifest.main))
    model.reshape({0: list(images.shape)})
    lookup, fused = set(), False
    for node in model.get_ordered_ops():
        if node.get_type_name() in (LOOKUP, HEAD):
            lookup.add(node.get_friendly_name())
            fused = fused or node.get_type_name() == HEAD
    device = bundle.manifest.target.openvino_device
    config = {**model_config(settings, device), **device_settings(core, device)}
    compiled = core.compile_model(model, device, {**config, "PERF_COUNT": True})
    parts = _parts(compiled.get_runtime_model(), lookup)
    if fused:  # one operator: its time cannot be split
        parts = {
            name: "lookup and head, fused" if part == "codebook lookup" else part
            for name, part in parts.items()
        }
    request = compiled.create_infer_request()
    for _ in range(5):
        request.infer({0: images}, share_inputs=True)
    totals: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for _ in range(calls):
        request.infer({0: images}, share_inputs=True)
        for entry in request.profiling_info:
            if entry.node_type in _NOT_LAYERS:
                continue
            milliseconds = 1e3 * entry.real_time.total_seconds()
            totals[entry.node_name] = totals.get(entry.node_name, 0.0) + milliseconds
            kinds[entry.node_name] = f"{entry.node_type} {entry.exec_type}"
    # A layer of the executed graph that took under a microsecond is sometimes reported as not run:
    # it stays listed, with zero time. Layers that were fused into others are not in that graph.
    layers = tuple(
        Layer(name, kinds[name], total / calls, parts.get(name, "unassigned"))
        for name, total in totals.items()
        if total > 0 or name in parts
    )
    return Profile(layers, "parts from the graph that OpenVINO executes")


def _parts(graph: Any, lookup: set[str]) -> dict[str, Any]:
    """The part of every node of the executed graph, in which some nodes are fused from several."""
    nodes = []
    lookup_nodes = set()
    for node in graph.get_ordered_ops():
        name = node.get_friendly_name()
        information = node.get_rt_info()
        originals = [name]
        if "originalLayersNames" in information:
            originals += information["originalLayersNames"].astype(str).split(",")
        if lookup.intersection(originals) or any(is_lookup(original) for original in originals):
            lookup_nodes.add(name)
        sources = [
            value.get_source_output().get_node().get_friendly_name() for value in node.inputs()
        ]
        nodes.append((name, sources))
    return dict(parts_of_graph(nodes, lookup_nodes))
