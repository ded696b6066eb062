"""Cold start and memory: a separate process loads the bundle and notes the time of each step.

``python -m edgekit.bench.cold_start SETTINGS`` is that process; `run_process` starts it. Both
read the same clock (CLOCK_MONOTONIC), so the interpreter's own start counts as well.
"""

from __future__ import annotations

import time

_AT_FIRST_LINE = time.monotonic()  # before the imports below, which are part of a cold start

# ruff: noqa: E402
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgekit.bench.results import ColdStart, Memory

_CALLS: Final = 20  # after the first, for the memory in use and the time of later inferences
_GIVE_UP: Final = 600.0  # seconds


@dataclass(frozen=True)
class ProcessSettings:
    """What the process loads, and how."""

    bundle: str
    batch: int | None
    threads: int | None
    cache: str | None
    """The folder of compiled models; None compiles again and keeps nothing."""


@dataclass(frozen=True)
class ProcessResult:
    """The times and memory that one process reports."""

    phases_ms: dict[str, float]
    """Milliseconds of each of `results.PHASES`."""
    total_ms: float
    """From starting the process to its first prediction."""
    after_ms: float
    """Median of the inferences after the first."""
    memory_mib: dict[str, float | None]
    """In use after importing the runtime, after loading and at the end, and the peak."""
    gpu_mib: float | None
    """Taken on the GPU; None without one."""


def run_process(settings: ProcessSettings) -> ProcessResult:
    """Run a process that loads the bundle and predicts; its times and memory."""
    from edgekit.bench.results import PHASES  # not in the process that is timed
    from edgekit.core.errors import EdgekitError

    command = [sys.executable, "-m", "edgekit.bench.cold_start", json.dumps(asdict(settings))]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_GIVE_UP
        )
    except subprocess.TimeoutExpired as error:
        raise EdgekitError(
            f"{settings.bundle}: a new process made no prediction in {_GIVE_UP:.0f} s"
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EdgekitError(
            f"{settings.bundle}: a new process failed with exit code {done.returncode}: {reason}"
        )
    report = json.loads(done.stdout.splitlines()[-1])
    times = [begun, *(report["at"][phase] for phase in PHASES)]
    spans = [1e3 * (b - a) for a, b in itertools.pairwise(times)]
    return ProcessResult(
        phases_ms=dict(zip(PHASES, spans, strict=True)),
        total_ms=1e3 * (times[-1] - begun),
        after_ms=report["after_ms"],
        memory_mib=report["memory_mib"],
        gpu_mib=report["gpu_mib"],
    )


def cold_start(runs: Sequence[ProcessResult]) -> ColdStart:
    """Medians over several processes."""
    from edgekit.bench.results import PHASES, ColdStart

    totals = [run.total_ms for run in runs]
    return ColdStart(
        processes=len(runs),
        median_ms=statistics.median(totals),
        min_ms=min(totals),
        max_ms=max(totals),
        phases_ms={
            phase: statistics.median(run.phases_ms[phase] for run in runs) for phase in PHASES
        },
        after_ms=statistics.median(run.after_ms for run in runs),
    )


def memory(runs: Sequence[ProcessResult]) -> Memory:
    """Maxima over several processes."""
    from edgekit.bench.results import Memory

    def maximum(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return max(known) if known else None

    return Memory(
        processes=len(runs),
        **{f"{name}_mib": maximum([run.memory_mib[name] for run in runs]) for name in _MOMENTS},
        gpu_mib=maximum([run.gpu_mib for run in runs]),
    )


_MOMENTS: Final = ("runtime", "loaded", "used", "peak")


def _measure(settings: ProcessSettings) -> dict[str, Any]:
    """Load the bundle step by step, as `edgekit.load` does."""
    at = {"start": _AT_FIRST_LINE}
    import numpy as np

    from edgekit.bundle.store import open_bundle
    from edgekit.runtime.model import Model
    from edgekit.runtime.runner import open_runner, run_settings

    at["import"] = time.monotonic()
    bundle = open_bundle(Path(settings.bundle))
    target = bundle.manifest.target
    at["verify"] = time.monotonic()
    importlib.import_module(f"edgekit.runtime.{target.backend}")
    at["runtime"] = time.monotonic()
    used = {"runtime": _resident()}
    gpu_before = _gpu_in_use() if target.backend == "tensorrt" else None
    chosen = run_settings(target, threads=settings.threads, hint="latency", batch=settings.batch)
    cache = None if settings.cache is None else Path(settings.cache)
    model = Model(bundle, open_runner(bundle, chosen, cache), chosen.batch)
    at["load"] = time.monotonic()
    used["loaded"] = _resident()
    images = np.zeros((chosen.batch or 1, *model.size, 3), np.uint8)
    model.run(images)
    at["first"] = time.monotonic()
    after = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        model.run(images)
        after.append(1e3 * (time.perf_counter() - start))
    used["used"] = _resident()
    used["peak"] = _status("VmHWM")
    gpu = None if gpu_before is None else _gpu_in_use() - gpu_before
    return {
        "at": at,
        "after_ms": statistics.median(after),
        "memory_mib": used,
        "gpu_mib": gpu,
    }


def _resident() -> float | None:
    return _status("VmRSS")


def _status(key: str) -> float | None:
    """A figure of this process in MiB; None where the system does not report it."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return None


def _gpu_in_use() -> float:
    """MiB in use on the GPU by all processes; on a Jetson that is the system's memory."""
    import ctypes

    from edgekit.runtime.cuda_memory import runtime

    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    runtime().cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    return (total.value - free.value) / 2**20


def main(arguments: Sequence[str]) -> int:
    """The process's entry point: prints one line of JSON."""
    from edgekit.core.errors import EdgekitError

    try:
        report = _measure(ProcessSettings(**json.loads(arguments[0])))
    except EdgekitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(report), flush=True)
    # Some runtimes are slow to shut down, or fail at it; that is not measured here.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
