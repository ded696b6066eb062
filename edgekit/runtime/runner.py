"""Runners: the runtimes that execute a bundle on the device, behind one interface.

Each backend's module imports only its runtime and NumPy. They are listed here by name; nothing is
discovered. `edgekit.compilers` is the other half of a backend.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.engine import check_engine_built
from edgekit.bundle.store import Bundle
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.typed_toml import nearest
from edgekit.runtime.answers import Answers
from edgekit.targets.descriptor import Descriptor, Hint, InferencePrecision

_RUN: Final = {
    "openvino": "edgekit.runtime.openvino",
    "onnxruntime": "edgekit.runtime.onnxruntime",
    "tensorrt": "edgekit.runtime.tensorrt",
}


@dataclass(frozen=True)
class RunSettings:
    """How a runtime is set up; `run_settings` takes them from the descriptor in a bundle."""

    batch: int  # images per inference; 0 for any number
    hint: Hint
    threads: int  # 0: the runtime's choice
    streams: int  # 0: the runtime's choice
    inference_precision: InferencePrecision


class Runner(Protocol):
    """A model ready to run; any number of threads may call it at the same time."""

    parallel: int
    """Inferences that run in parallel; further callers wait."""

    def run(self, batch: NDArray[np.uint8]) -> Answers:
        """Images RGB, uint8 [B, height, width, 3], of the model's size; any B."""

    def describe(self) -> dict[str, str | int]:
        """What the runtime actually uses: threads, streams, precision."""


class _RunModule(Protocol):
    """What every module in `_RUN` has."""

    def runtime_version(self) -> str:
        """The installed release, as in ``2026.4.1``."""

    def open_runner(self, bundle: Bundle, settings: RunSettings, cache: Path | None) -> Runner:
        """Load the bundle's model."""


def run_settings(
    descriptor: Descriptor,
    *,
    threads: int | None = None,
    hint: Hint | None = None,
    batch: int | None = None,
) -> RunSettings:
    """The descriptor's settings, unless the caller overrides them."""
    if threads is not None and threads < 0:
        raise UsageError(f"threads must not be negative, not {threads}; 0 is the runtime's choice")
    if hint not in (None, "latency", "throughput"):
        raise UsageError(f"unknown hint '{hint}' (known: latency, throughput)")
    built_for = descriptor.batch
    if batch is not None and batch < 1:
        raise UsageError(f"batch must be at least 1, not {batch}")
    if batch is not None and descriptor.backend == "tensorrt" and built_for not in (0, batch):
        raise UsageError(
            f"an engine for {descriptor.name} takes {built_for} image(s) at a time, not {batch}: "
            "build for a target with that batch"
        )
    settings = RunSettings(
        batch=built_for if batch is None else batch,
        hint=hint or descriptor.hint,
        threads=descriptor.threads if threads is None else threads,
        streams=descriptor.streams if hint in (None, descriptor.hint) else 0,
        inference_precision=descriptor.inference_precision,
    )
    for name, most in _MOST.items():  # a bundle's own are no wiser than a caller's
        if getattr(settings, name) > most:
            raise UsageError(f"{name} must be at most {most:,}, not {getattr(settings, name):,}")
    return settings


_MOST: Final = {"threads": 4096, "batch": 65_536}
"""Beyond these, runtimes crash or ask for all memory instead of saying what is wrong."""


def open_runner(bundle: Bundle, settings: RunSettings, cache: Path | None) -> Runner:
    """Load a checked bundle with the runtime it needs; ``cache`` may keep compiled models."""
    check_engine_built(bundle)
    need = bundle.manifest.runtime
    install = f"pip install '{need.requirement}'"
    module = import_backend(_RUN, bundle.manifest.target.backend, f"run {bundle.path}", install)
    runtime = cast(_RunModule, module)
    installed = runtime.runtime_version()
    fits = (
        installed == need.version if need.match == "exact" else _at_least(installed, need.version)
    )
    if not fits:
        required = need.version + ("" if need.match == "exact" else " or newer")
        raise ToolchainMissing(
            f"{bundle.path} needs {need.name} {required}, installed is {installed}: run {install}"
        )
    return runtime.open_runner(bundle, settings, cache)


def import_backend(modules: dict[str, str], backend: str, task: str, install: str) -> object:
    """The module of ``backend``; if it does not load, an error that says what to install."""
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


def _at_least(version: str, minimum: str) -> bool:
    return _numbers(version) >= _numbers(minimum)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
