"""The bench step of a build: the bundle beside its float original, in one run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bench import compare
from edgekit.bundle import update_bundle
from edgekit.steps import Built, Job

FLOAT_ORT = "float, ONNX Runtime"
FLOAT_OPENVINO = "float, OpenVINO"


def bench(job: Job, built: Built) -> dict[str, Any]:
    """Latency at batch 1 of bundle and float baselines, a call of each in turn.

    The baselines get images that are normalized already; the bundle normalizes its own.
    """
    from edgekit.runtime import load

    preprocessing = built.quantized.exported.card.preprocessing
    image = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.size, 3), np.uint8)
    prepared = preprocessing.normalize(image)
    model = load(built.path)
    job.console.info(f"bench ({built.descriptor.name}): about {job.config.bench_seconds:.0f} s")
    comparison = compare(
        "bundle",
        {
            "bundle": lambda: model.run(image),
            FLOAT_ORT: float_onnxruntime(built.quantized.exported.onnx, prepared),
            FLOAT_OPENVINO: float_openvino(built.quantized.exported.onnx, prepared),
        },
        seconds=job.config.bench_seconds,
    )
    document = {
        "schema": 1,
        "batch": 1,
        "runtime": model.describe(),
        "cores": len(os.sched_getaffinity(0)),
        **comparison.to_dict(),
    }
    update_bundle(built.path, sections={"bench": document})
    return document


def float_onnxruntime(
    path: Path, prepared: NDArray[np.float32], threads: int = 0
) -> Callable[[], object]:
    """The float graph under ONNX Runtime; ``prepared`` is a normalized batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": prepared})


def float_openvino(path: Path, prepared: NDArray[np.float32]) -> Callable[[], object]:
    """The float graph under OpenVINO, its lookup in OpenVINO's own operators, in true float32."""
    import onnx
    import openvino as ov

    from edgekit.export.variants import to_variant

    model = ov.Core().read_model(to_variant(onnx.load(path), "inline").SerializeToString())
    model.reshape(list(prepared.shape))
    compiled = ov.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()
    return lambda: request.infer({0: prepared}, share_inputs=True)
