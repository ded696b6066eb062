"""Per-layer times of a TensorRT bundle, through its binding's IProfiler.

Written from TensorRT 10's documentation; it has never produced a measured figure.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorrt
from numpy.typing import NDArray

from edgekit.bench.layers.profile import Layer, Part, Profile, is_lookup, parts_of_onnx
from edgekit.bundle.engine import MODEL
from edgekit.bundle.store import Bundle
from edgekit.runtime.runner import RunSettings
from edgekit.runtime.tensorrt import open_runner


class _Times(tensorrt.IProfiler):  # type: ignore[misc] # the package has no types
    """Adds up what TensorRT reports after every inference."""

    def __init__(self) -> None:
        tensorrt.IProfiler.__init__(self)
        self.totals: dict[str, float] = {}

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        self.totals[layer_name] = self.totals.get(layer_name, 0.0) + ms


def profile(
    bundle: Bundle, settings: RunSettings, images: NDArray[np.uint8], calls: int
) -> Profile:
    """The mean times of ``calls`` inferences."""
    runner = open_runner(bundle, settings, None)
    for _ in range(5):
        runner.run(images)
    times: Any = _Times()
    runner.report_layers_to(times)
    for _ in range(calls):
        runner.run(images)
    graph = bundle.folder / MODEL
    part_of = parts_of_onnx(str(graph)) if graph.exists() else None

    def part(layer: str) -> Part:
        if is_lookup(layer):
            return "codebook lookup"
        names = re.split(r"[\s+,()\[\]{}]+", layer)
        parts = [known for name in names if part_of and (known := part_of(name))]
        return parts[0] if parts else "unassigned"

    layers = tuple(
        Layer(name, "", total / calls, part(name)) for name, total in times.totals.items()
    )
    why = "" if part_of else " (the head is not separated: package onnx is not installed)"
    return Profile(layers, f"parts from the names of TensorRT's layers{why}")
