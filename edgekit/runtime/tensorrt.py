"""Runs bundles with TensorRT: loads a bundle's engine and runs it on the GPU.

Images go through pinned memory. With EDGEKIT_CUDA_GRAPH=1 in the environment, the work of an
inference is recorded once for each batch size and then launched as a whole.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorrt
from numpy.typing import NDArray

from edgekit.bundle.store import Bundle
from edgekit.core.errors import EdgekitError
from edgekit.runtime.answers import Answers, in_chunks
from edgekit.runtime.cuda_memory import Buffer, Graph, Stream, gpu_name
from edgekit.runtime.runner import RunSettings
from edgekit.targets.operators import DOMAIN, LOOKUP, LOOKUP_VERSION

_OUTPUTS: Final = ("logits", "code", "margin")
_PLUGIN: Final = (LOOKUP, LOOKUP_VERSION, DOMAIN)
_MOST_PREPARED: Final = 4  # batch sizes whose buffers are kept


class _Log(tensorrt.ILogger):  # type: ignore[misc] # the package has no types
    """Keeps TensorRT's last error, which its Python functions do not raise."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.last = ""

    def log(self, severity: Any, message: str) -> None:
        if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
            self.last = " ".join(message.split())


def runtime_version() -> str:
    """The release, as in ``10.3.0``; engines do not depend on its build number."""
    return ".".join(str(tensorrt.__version__).split(".")[:3])


def open_runner(bundle: Bundle, settings: RunSettings, cache: Path | None) -> TensorRTRunner:
    """Load the engine; nothing is worth caching."""
    main = bundle.folder / bundle.manifest.main
    log = _Log()
    gpu_name()  # an error of one line if there is no GPU
    for plugin in bundle.plugins():
        _load_plugin(plugin)
    runtime = tensorrt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(main.read_bytes())
    if engine is None:
        raise EdgekitError(_refusal(log.last, bundle))
    return TensorRTRunner(runtime, engine, log, settings)


def _load_plugin(path: Path) -> None:
    registry = tensorrt.get_plugin_registry()
    try:
        registry.load_library(str(path))
    except RuntimeError as error:
        raise EdgekitError(f"TensorRT cannot load {path}: {error}") from error
    if registry.get_creator(*_PLUGIN) is None:
        raise EdgekitError(
            f"{path} has no plugin {_PLUGIN[2]}::{_PLUGIN[0]} of version {_PLUGIN[1]}: build the "
            "bundle again with this edgekit"
        )


def _refusal(reason: str, bundle: Bundle) -> str:
    """Why TensorRT refuses an engine, and what to do about it."""
    low = reason.lower()
    again = f"run 'bash {bundle.path / 'build_on_device.sh'}' again on this device"
    if "version" in low or "magic tag" in low:
        return (
            f"{bundle.path}: its engine is for another TensorRT, not {runtime_version()}: {again}"
        )
    if "compute" in low or "device" in low:
        return f"{bundle.path}: its engine is for another GPU than {gpu_name()}: {again}"
    if "plugin" in low or "creator" in low:
        return f"{bundle.path}: its engine needs a plugin that is not in the bundle: {again}"
    return f"TensorRT cannot load {bundle.path}: {reason or 'no reason given'}"


class TensorRTRunner:
    """An engine with one execution context; calls run one after another."""

    parallel = 1

    def __init__(self, runtime: Any, engine: Any, log: _Log, settings: RunSettings) -> None:
        self._runtime = runtime  # an engine must not outlive it
        self._engine = engine
        self._log = log
        self._settings = settings
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EdgekitError(f"TensorRT cannot run the engine: {log.last}")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        (self._input,) = [name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT]
        self._outputs = [name for name in _OUTPUTS if name in names]
        self._stream = Stream()
        self._use_graph = os.environ.get("EDGEKIT_CUDA_GRAPH", "") == "1"
        self._prepared: dict[int, _Prepared] = {}
        self._lock = threading.Lock()

    def run(self, batch: NDArray[np.uint8]) -> Answers:
        """Images RGB, uint8 [B, height, width, 3], of the model's size; any B."""
        size = self._settings.batch
        if size and len(batch) % size:  # the engine takes exactly this many
            filled = np.zeros((-len(batch) % size, *batch.shape[1:]), np.uint8)
            answers = in_chunks(self._infer, np.concatenate([batch, filled]), size)
            return answers.part(slice(len(batch)))
        return in_chunks(self._infer, batch, size or self._largest())

    def describe(self) -> dict[str, str | int]:
        """What TensorRT uses."""
        return {
            "runtime": f"tensorrt {runtime_version()}",
            "device": gpu_name(),
            "inference_precision": self._settings.inference_precision,
            "hint": self._settings.hint,
            "threads": 1,
            "streams": 1,
            "batch": self._settings.batch,
            "cuda_graph": int(self._use_graph),
        }

    def report_layers_to(self, profiler: Any) -> None:
        """From now on, TensorRT reports every layer's time to a ``tensorrt.IProfiler``."""
        self._context.profiler = profiler

    def _largest(self) -> int:
        """The most images that the engine takes at once."""
        _, _, most = self._engine.get_tensor_profile_shape(self._input, 0)
        return int(most[0])

    def _infer(self, images: NDArray[np.uint8]) -> Answers:
        with self._lock:
            prepared = self._prepare(images.shape)
            start = time.perf_counter()
            np.copyto(prepared.input.host, images)
            if prepared.graph is not None:
                prepared.graph.launch(self._stream)
            else:
                self._enqueue(prepared)
            self._stream.wait()
            outputs = {name: buffer.host.copy() for name, buffer in prepared.outputs.items()}
            seconds = time.perf_counter() - start
            if self._use_graph and prepared.graph is None:
                # The first run of a shape let TensorRT allocate; now it can be recorded.
                prepared.graph = Graph(self._stream, lambda: self._enqueue(prepared))
        margin = outputs.get("margin")
        if margin is not None and np.isnan(margin).any():
            raise EdgekitError(
                "the lookup received NaN or infinity, so the engine or its weights are damaged: "
                "build it again"
            )
        return Answers.of(outputs, seconds)

    def _enqueue(self, prepared: _Prepared) -> None:
        prepared.input.upload(self._stream)
        if not self._context.execute_async_v3(self._stream.handle.value):
            raise EdgekitError(f"TensorRT: inference failed: {self._log.last}")
        for buffer in prepared.outputs.values():
            buffer.download(self._stream)

    def _prepare(self, shape: tuple[int, ...]) -> _Prepared:
        """Buffers of a batch size, bound to the context."""
        prepared = self._prepared.pop(shape[0], None)
        if not self._context.set_input_shape(self._input, shape):
            raise EdgekitError(
                f"the engine does not take images {shape}: build it for another batch, or resize "
                "the images"
            )
        if prepared is None:
            while len(self._prepared) >= _MOST_PREPARED:
                self._prepared.pop(next(iter(self._prepared))).close()
            outputs = {
                name: Buffer(
                    tuple(self._context.get_tensor_shape(name)),
                    tensorrt.nptype(self._engine.get_tensor_dtype(name)),
                )
                for name in self._outputs
            }
            prepared = _Prepared(Buffer(shape, np.uint8), outputs)
        self._prepared[shape[0]] = prepared  # last: the most recently used
        self._context.set_tensor_address(self._input, prepared.input.device.value)
        for name, buffer in prepared.outputs.items():
            self._context.set_tensor_address(name, buffer.device.value)
        return prepared

    def close(self) -> None:
        """Free the memory on the GPU."""
        for prepared in self._prepared.values():
            prepared.close()
        self._prepared.clear()
        self._stream.close()


class _Prepared:
    """Buffers of one batch size and, if requested, its recorded work."""

    def __init__(self, source: Buffer, outputs: dict[str, Buffer]) -> None:
        self.input = source
        self.outputs = outputs
        self.graph: Graph | None = None

    def close(self) -> None:
        for buffer in (self.input, *self.outputs.values()):
            buffer.close()
        if self.graph is not None:
            self.graph.close()
