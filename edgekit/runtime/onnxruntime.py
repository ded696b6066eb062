"""ONNX Runtime on the CPU: all of edgekit's sessions are opened here, for bundles and graphs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)

from edgekit.bundle.store import Bundle
from edgekit.core.errors import EdgekitError
from edgekit.core.host import runtime_threads, usable_threads
from edgekit.core.threads import WAIT_SECONDS, late
from edgekit.runtime.answers import Answers, in_chunks
from edgekit.runtime.runner import RunSettings
from edgekit.targets.descriptor import host_saturates

_FATAL: Final = 4  # ONNX Runtime's severity: what is an error is raised, and told once
FAILURES: Final = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)
"""What ONNX Runtime raises; its classes share no base."""
_OUTPUTS: Final = ("logits", "code", "margin")
CPU: Final = "CPUExecutionProvider"


def runtime_version() -> str:
    """The release, as in ``1.31.1``."""
    version: str = onnxruntime.__version__
    return version


def open_session(
    model: str | bytes,
    *,
    threads: int = 0,
    optimized: bool = True,
    profile: str = "",
    provider: str = CPU,
    place_nodes: bool = False,
    integers: bool = True,
    tables: Path | None = None,
) -> onnxruntime.InferenceSession:
    """A session for the ONNX file of this name, or with these bytes.

    ``threads`` work on an inference (0: as many as this process may use). Without ``optimized`` it
    computes node by node exactly what ONNX defines. Node times go to a file whose name begins with
    ``profile``. What ``provider`` does not take runs on the CPU; with ``place_nodes`` the session
    can say which nodes those are. Without ``integers`` a quantized graph is computed in floats.
    Files that a graph in bytes names lie in the folder ``tables``.

    On an x86 CPU without VNNI its kernels for signed weights add pairs of products in 16 bits,
    which overflow: logits were off by half the difference between images. Its precise mode uses
    kernels for unsigned weights instead, at 1.15 to 1.3 times the time.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if host_saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = runtime_threads(threads)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if place_nodes:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if tables is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(tables)
        )
    providers = [CPU] if provider == CPU else [provider, CPU]
    return onnxruntime.InferenceSession(model, options, providers=providers)


def named_outputs(
    session: onnxruntime.InferenceSession, images: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """All outputs, by name, of a graph with one input."""
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: images})
    return dict(zip(names, values, strict=True))


def open_runner(bundle: Bundle, settings: RunSettings, cache: Path | None) -> OnnxRuntimeRunner:
    """Load the model; nothing is worth caching."""
    cores = usable_threads()
    if settings.hint == "throughput":  # many inferences at a time, each on few threads
        parallel = settings.streams or settings.threads or cores
        threads = max(1, (settings.threads or cores) // parallel)
    else:
        parallel = settings.streams or 1
        threads = settings.threads
    main = str(bundle.folder / bundle.manifest.main)
    try:
        session = open_session(main, threads=threads)
    except FAILURES as error:
        reason = " ".join(str(error).split())
        raise EdgekitError(f"ONNX Runtime cannot load {bundle.path}: {reason}") from error
    return OnnxRuntimeRunner(session, settings, parallel, runtime_threads(threads) or cores)


class OnnxRuntimeRunner:
    """A session; ``parallel`` calls run at a time."""

    def __init__(self, session: Any, settings: RunSettings, parallel: int, threads: int) -> None:
        self.parallel = parallel
        self._session = session
        self._settings = settings
        self._threads = threads
        self._slots = threading.BoundedSemaphore(parallel)
        self._input = session.get_inputs()[0].name
        names = [output.name for output in session.get_outputs()]
        self._outputs = [name for name in _OUTPUTS if name in names]

    def run(self, batch: NDArray[np.uint8]) -> Answers:
        """Images RGB, uint8 [B, height, width, 3], of the model's size; any B."""
        return in_chunks(self._infer, batch, self._settings.batch)

    def describe(self) -> dict[str, str | int]:
        """What ONNX Runtime uses."""
        return {
            "runtime": f"onnxruntime {runtime_version()}",
            "device": "CPU",
            "inference_precision": "f32",
            "hint": self._settings.hint,
            "threads": self._threads,
            "streams": self.parallel,
            "batch": self._settings.batch,
        }

    def _infer(self, images: NDArray[np.uint8]) -> Answers:
        if not self._slots.acquire(timeout=WAIT_SECONDS):
            raise late(f"ONNX Runtime: one of {self.parallel} free slots")
        start = time.perf_counter()
        try:
            values = self._session.run(self._outputs, {self._input: np.ascontiguousarray(images)})
        except FAILURES as error:
            reason = " ".join(str(error).split())
            raise EdgekitError(f"ONNX Runtime: inference failed: {reason}") from error
        finally:
            self._slots.release()
        seconds = time.perf_counter() - start
        return Answers.of(dict(zip(self._outputs, values, strict=True)), seconds)
