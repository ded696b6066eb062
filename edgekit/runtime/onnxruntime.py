"""ONNX Runtime, run side: loads the ONNX file of a bundle and runs it on the CPU."""

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
    NotImplemented,
    RuntimeException,
)

from edgekit.bundle.store import Bundle
from edgekit.core.errors import EdgekitError
from edgekit.core.host import runtime_threads, usable_threads
from edgekit.core.threads import WAIT_SECONDS, late
from edgekit.runtime.answers import Raw, in_chunks
from edgekit.runtime.runner import RunSettings

_ERRORS: Final = 3  # ONNX Runtime's severity: say nothing below an error
_FAILURES: Final = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,
    RuntimeException,
)
_OUTPUTS: Final = ("logits", "code", "margin")


def runtime_version() -> str:
    """The release, as in ``1.31.1``."""
    version: str = onnxruntime.__version__
    return version


def open_runner(bundle: Bundle, settings: RunSettings, cache: Path | None) -> OnnxRuntimeRunner:
    """Load the model; there is nothing worth keeping in ``cache``."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS
    cores = usable_threads()
    if settings.hint == "throughput":  # many inferences at a time, each on few threads
        parallel = settings.streams or settings.threads or cores
        options.intra_op_num_threads = max(1, (settings.threads or cores) // parallel)
    else:
        parallel = settings.streams or 1
        options.intra_op_num_threads = runtime_threads(settings.threads)
    main = str(bundle.folder / bundle.manifest.main)
    try:
        session = onnxruntime.InferenceSession(main, options, providers=["CPUExecutionProvider"])
    except _FAILURES as error:
        reason = " ".join(str(error).split())
        raise EdgekitError(f"ONNX Runtime cannot load {bundle.path}: {reason}") from error
    threads = options.intra_op_num_threads or cores
    return OnnxRuntimeRunner(session, settings, parallel, threads)


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

    def run(self, batch: NDArray[np.uint8]) -> Raw:
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

    def _infer(self, images: NDArray[np.uint8]) -> Raw:
        if not self._slots.acquire(timeout=WAIT_SECONDS):
            raise late(f"ONNX Runtime: one of {self.parallel} turns")
        start = time.perf_counter()
        try:
            values = self._session.run(self._outputs, {self._input: np.ascontiguousarray(images)})
        except _FAILURES as error:
            reason = " ".join(str(error).split())
            raise EdgekitError(f"ONNX Runtime: inference failed: {reason}") from error
        finally:
            self._slots.release()
        seconds = time.perf_counter() - start
        found = dict(zip(self._outputs, values, strict=True))
        return Raw(found["logits"], found.get("code"), found.get("margin"), seconds)
