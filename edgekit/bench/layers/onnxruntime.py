"""Per-layer times of an ONNX Runtime bundle, from its own profiling."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bench.layers.profile import Layer, Part, Profile, is_lookup, parts_of_onnx
from edgekit.bundle.store import Bundle
from edgekit.runtime.onnxruntime import named_outputs, open_session
from edgekit.runtime.runner import RunSettings

_SUFFIX: Final = "_kernel_time"
_WARM_UP: Final = 5


def profile(
    bundle: Bundle, settings: RunSettings, images: NDArray[np.uint8], calls: int
) -> Profile:
    """The mean times of ``calls`` inferences of the model, loaded once more with profiling."""
    path = str(bundle.folder / bundle.manifest.main)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        prefix = str(Path(folder) / "profile")
        session = open_session(path, threads=settings.threads, profile=prefix)
        for _ in range(_WARM_UP + calls):
            named_outputs(session, images)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    part_of = parts_of_onnx(path)
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(_SUFFIX):
            node = str(event["name"]).removesuffix(_SUFFIX)
            times.setdefault(node, []).append(event["dur"] / 1e3)
            kinds[node] = str(event["args"].get("op_name", ""))

    def part(node: str) -> Part:
        if is_lookup(node):
            return "codebook lookup"
        if part_of is None:
            return "unassigned"
        # Layout optimizers append _token_N to the names of nodes they replace.
        return part_of(re.sub(r"(_token_\d+)+$", "", node)) or "unassigned"

    layers = tuple(
        Layer(node, kinds[node], sum(durations[_WARM_UP:]) / calls, part(node))
        for node, durations in times.items()
    )
    if part_of is None:
        return Profile(layers, "the head is not separated: package onnx is not installed")
    return Profile(layers, "parts from the names of the graph's nodes")
