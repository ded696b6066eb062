"""The bench step of a build: the bundle beside its float original, in one run."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.bench.baseline import FLOAT_OPENVINO, FLOAT_ORT, float_onnxruntime, float_openvino
from edgekit.bench.document import latency_summary
from edgekit.bench.interleaved import time_in_turns
from edgekit.bench.monitor import Watch
from edgekit.bundle.store import update_bundle
from edgekit.core.console import Console
from edgekit.core.host import usable_threads
from edgekit.steps.artifacts import Built, Exported


def bench(console: Console, built: Built, exported: Exported, seconds: float) -> dict[str, Any]:
    """Latency at batch 1 of the bundle and the float baselines, taking turns.

    The baselines get normalized images; the bundle normalizes its own.
    """
    from edgekit.runtime.model import load

    preprocessing = exported.card.preprocessing
    image = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.size, 3), np.uint8)
    prepared = preprocessing.normalize(image)
    model = load(built.path)
    console.info(f"bench ({built.descriptor.name}): about {seconds:.0f} s")
    watch = Watch()
    comparison = time_in_turns(
        "bundle",
        {
            "bundle": lambda: model.run(image),
            FLOAT_ORT: float_onnxruntime(exported.onnx, prepared),
            FLOAT_OPENVINO: float_openvino(exported.onnx, prepared),
        },
        seconds=seconds,
        between=watch.look,
    )
    watch.finish()
    for note in watch.notes(latency_drift=comparison.drift):
        console.warn(f"bench ({built.descriptor.name}): {note}")
    document = {
        "schema": 1,
        "batch": 1,
        "runtime": model.describe(),
        "cores": usable_threads(),
        **latency_summary(comparison.to_dict()),
    }
    update_bundle(built.path, sections={"bench": document})
    return document
