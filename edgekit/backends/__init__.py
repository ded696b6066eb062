"""Backends: the runtimes that execute a bundle, behind one interface on either side.

A backend has two modules. The *compile* side turns a calibrated ONNX file into the files of a
bundle, on a workstation. The *run* side executes them on the device and imports its runtime and
NumPy, nothing else. Both are listed here by name; nothing is discovered.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Bundle
from edgekit.data.transforms import Preprocessing
from edgekit.descriptors import Descriptor, Hint, InferencePrecision
from edgekit.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.manifest import RuntimeNeed
from edgekit.settings import nearest

LookupForm = Literal["auto", "plugin", "inline"]

# A backend's name in descriptors and manifests -> its modules. The run side also has a package
# that `pip install` knows.
_COMPILE: Final = {
    "openvino": "edgekit.backends.openvino_compile",
    "onnxruntime": "edgekit.backends.onnxruntime_compile",
    "tensorrt": "edgekit.backends.tensorrt_compile",
}
_RUN: Final = {
    "openvino": "edgekit.backends.openvino",
    "onnxruntime": "edgekit.backends.onnxruntime",
    "tensorrt": "edgekit.backends.tensorrt",
}


@dataclass(frozen=True)
class CompiledFiles:
    """What the compile side wrote."""

    main: str
    """The file that the runtime opens."""
    files: tuple[Path, ...]
    """All files, in one folder, plugins included."""
    plugins: tuple[str, ...]
    arch: str
    """Of the plugins; "any" without."""
    runtime: RuntimeNeed
    input_name: str
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest is to say beside: a TensorRT engine may be pending."""


class Raw(NamedTuple):
    """What one inference yields for B images."""

    logits: NDArray[np.float32]
    """[B, classes]"""
    code: NDArray[np.int64] | None
    """[B], or [B, P] where every position is quantized; None without a codebook."""
    margin: NDArray[np.float32] | None
    """Best minus second-best lookup score, shaped as ``code``; None where it was left out."""
    seconds: float
    """Time in the runtime, without waiting for a free one."""


@dataclass(frozen=True)
class RunSettings:
    """How a runtime is set up; `run_settings` takes them from the descriptor in a bundle."""

    batch: int  # images an inference; 0 for any number
    hint: Hint
    threads: int  # 0: the runtime's choice
    streams: int  # 0: the runtime's choice
    inference_precision: InferencePrecision


class Runner(Protocol):
    """A model ready to run; any number of threads may call it at a time."""

    parallel: int
    """Inferences that run side by side; more callers than that wait."""

    def run(self, batch: NDArray[np.uint8]) -> Raw:
        """Images RGB, uint8 [B, height, width, 3], of the model's size; any B."""

    def describe(self) -> dict[str, str | int]:
        """What the runtime really uses: threads, streams, precision."""


class Compiler(Protocol):
    """The compile side of a backend."""

    def __call__(
        self,
        onnx_path: Path,
        preprocessing: Preprocessing,
        descriptor: Descriptor,
        out_dir: Path,
        lookup: LookupForm = "auto",
    ) -> CompiledFiles:
        """Turn the (calibrated) ONNX file into the files of a bundle, with uint8 images in."""


class _CompileModule(Protocol):
    """What every module in `_COMPILE` has."""

    compile_model: Compiler


class _RunModule(Protocol):
    """What every module in `_RUN` has."""

    def runtime_version(self) -> str:
        """The installed release, as in ``2026.4.1``."""

    def open_runner(self, bundle: Bundle, settings: RunSettings, cache: Path | None) -> Runner:
        """Load the bundle's model."""


def compiler(backend: str) -> Compiler:
    """The compile side of ``backend``."""
    module = _import(_COMPILE, backend, "build a bundle", "pip install 'edgekit[build]'")
    return cast(_CompileModule, module).compile_model


def run_settings(
    descriptor: Descriptor,
    *,
    threads: int | None = None,
    hint: Hint | None = None,
    batch: int | None = None,
) -> RunSettings:
    """The descriptor's settings, where the caller does not say otherwise."""
    if threads is not None and threads < 0:
        raise UsageError(f"threads must not be negative, not {threads}; 0 is the runtime's choice")
    if hint not in (None, "latency", "throughput"):
        raise UsageError(f"unknown hint '{hint}' (known: latency, throughput)")
    made_for = descriptor.batch
    if batch is not None and batch < 1:
        raise UsageError(f"batch must be at least 1, not {batch}")
    if batch is not None and descriptor.backend == "tensorrt" and made_for not in (0, batch):
        raise UsageError(
            f"an engine for {descriptor.name} takes {made_for} image(s) at a time, not {batch}: "
            "build for a target with that batch"
        )
    return RunSettings(
        batch=made_for if batch is None else batch,
        hint=hint or descriptor.hint,
        threads=descriptor.threads if threads is None else threads,
        streams=descriptor.streams if hint in (None, descriptor.hint) else 0,
        inference_precision=descriptor.inference_precision,
    )


def open_runner(bundle: Bundle, settings: RunSettings, cache: Path | None) -> Runner:
    """Load a checked bundle with the runtime it needs; ``cache`` may keep what is compiled."""
    need = bundle.manifest.runtime
    install = f"pip install '{need.name}{'==' if need.match == 'exact' else '>='}{need.version}'"
    module = _import(_RUN, bundle.manifest.target.backend, f"run {bundle.path}", install)
    runtime = cast(_RunModule, module)
    found = runtime.runtime_version()
    fits = found == need.version if need.match == "exact" else _at_least(found, need.version)
    if not fits:
        wanted = need.version + ("" if need.match == "exact" else " or newer")
        raise ToolchainMissing(
            f"{bundle.path} needs {need.name} {wanted}, installed is {found}: run {install}"
        )
    return runtime.open_runner(bundle, settings, cache)


def in_chunks(
    infer: Callable[[NDArray[np.uint8]], Raw], batch: NDArray[np.uint8], size: int
) -> Raw:
    """``infer`` on at most ``size`` images at a time (0: all at once), its answers joined."""
    if not len(batch):  # shapes are wanted all the same; runtimes differ on empty batches
        one = infer(np.zeros((1, *batch.shape[1:]), np.uint8))
        return Raw(
            one.logits[:0],
            None if one.code is None else one.code[:0],
            None if one.margin is None else one.margin[:0],
            0.0,
        )
    size = size or len(batch)
    parts = [infer(batch[start : start + size]) for start in range(0, len(batch), size)]
    if len(parts) == 1:
        return parts[0]
    codes = [part.code for part in parts if part.code is not None]
    margins = [part.margin for part in parts if part.margin is not None]
    return Raw(
        np.concatenate([part.logits for part in parts]),
        np.concatenate(codes) if codes else None,
        np.concatenate(margins) if margins else None,
        sum(part.seconds for part in parts),
    )


def _import(modules: dict[str, str], backend: str, task: str, install: str) -> object:
    if backend not in modules:
        raise UsageError(f"unknown backend '{backend}'{nearest(backend, list(modules))}")
    try:
        return importlib.import_module(modules[backend])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("edgekit"):
            raise
        raise ToolchainMissing(
            f"cannot {task}: package {error.name} is not installed: run {install}"
        ) from error
    except ImportError as error:
        raise EdgekitError(f"cannot {task}: {backend} does not load ({error})") from error


def _at_least(found: str, wanted: str) -> bool:
    return _numbers(found) >= _numbers(wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
