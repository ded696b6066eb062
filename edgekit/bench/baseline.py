"""The baselines of a bundle: its float original under ONNX Runtime and under OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.float_original import cached_original
from edgekit.bundle.store import Bundle
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.host import runtime_threads
from edgekit.core.threads import WAIT_SECONDS, late
from edgekit.runtime.openvino_core import shared_core

FLOAT_ORT: Final = "float, ONNX Runtime"
FLOAT_OPENVINO: Final = "float, OpenVINO"


class Baselines(NamedTuple):
    """The float models that run here, and why the others do not."""

    runs: dict[str, Callable[[], object]]
    missing: dict[str, str]


def baselines(
    chosen: str,
    bundle: Bundle,
    cache: Path,
    images: NDArray[np.uint8],
    threads: int,
    console: Console,
) -> Baselines:
    """The bundle's float original, run on the same ``images``, already normalized.

    ``chosen`` is "none", a float ONNX file, or "auto" for the one in the cache.
    """
    if chosen == "none":
        return Baselines({}, {})
    manifest = bundle.manifest
    if chosen == "auto":
        model = cached_original(cache, manifest.source.checkpoint, bundle.labels, console)
        if model is None:
            why = f"the float original is not in the cache {cache}: name it with --baseline"
            return Baselines({}, dict.fromkeys((FLOAT_ORT, FLOAT_OPENVINO), why))
    else:
        model = Path(chosen)
        if not model.is_file():
            raise UsageError(
                f"no float model at {model}: --baseline takes a float .onnx file or an earlier "
                "bundle"
            )
    prepared = manifest.preprocessing.normalize(images)
    runs: dict[str, Callable[[], object]] = {}
    missing: dict[str, str] = {}
    for name, make in ((FLOAT_ORT, float_onnxruntime), (FLOAT_OPENVINO, float_openvino)):
        try:
            run = make(model, prepared, threads)
            run()
            runs[name] = run
        except ModuleNotFoundError as error:
            missing[name] = f"package {error.name} is not installed"
        except (RuntimeError, ValueError) as error:  # raised by ONNX Runtime and OpenVINO
            if chosen != "auto":
                reason = one_line(error)
                raise EdgekitError(f"{model} does not run as '{name}': {reason}") from error
            missing[name] = one_line(error)
    return Baselines(runs, missing)


def float_onnxruntime(
    path: Path, prepared: NDArray[np.float32], threads: int = 0
) -> Callable[[], object]:
    """The float graph under ONNX Runtime; ``prepared`` is a normalized batch."""
    from edgekit.runtime.onnxruntime import open_session

    session = open_session(str(path), threads=threads)
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: prepared})


def float_openvino(
    path: Path, prepared: NDArray[np.float32], threads: int = 0
) -> Callable[[], object]:
    """The float graph under OpenVINO in true float32, the lookup in OpenVINO's own operators."""
    import onnx
    import openvino as ov

    from edgekit.graph.variants import to_variant

    core = shared_core()
    model = core.read_model(to_variant(onnx.load(path), "inline").SerializeToString())
    model.reshape(list(prepared.shape))
    config: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if count := runtime_threads(threads):
        config["INFERENCE_NUM_THREADS"] = count
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()

    def run() -> None:  # as a bundle's own runner does
        request.set_input_tensor(ov.Tensor(prepared, shared_memory=True))
        request.start_async()
        if not request.wait_for(round(1e3 * WAIT_SECONDS)):
            raise late("OpenVINO: an inference of the float model")

    return run
