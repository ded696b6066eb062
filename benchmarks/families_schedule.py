"""Runs the steps of `families.py`: each a process, as many at a time as there are CPUs."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "gpu", "all", "rest"]

_PAUSE = 0.05  # seconds between two looks at what has ended


@dataclass(frozen=True)
class Step:
    """A process that leaves ``result``; what is there already is not made again."""

    name: str
    result: Path
    needs: tuple[str, ...]  # steps that must have ended well before
    # cpu: takes a CPU for itself; gpu: one of few places at the GPU, and a CPU; all: every CPU
    # there is; rest: those that GPU steps leave, if there are more.
    kind: Kind
    command: list[str]


@dataclass
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    cpus: list[int]
    since: float


def run_all(steps: list[Step], gpu_places: int, logs: Path, limit: float | None) -> list[str]:
    """Run ``steps``, the first ones first wherever there is a choice; names of those that failed.

    What needs a failed step is left out, and so is what is not done after ``limit`` seconds.
    """
    begun = time.monotonic()
    done = {step.name for step in steps if step.result.exists()}
    waiting = [step for step in steps if step.name not in done]
    free = sorted(os.sched_getaffinity(0))
    count = len(free)
    running: list[_Running] = []
    failed: list[str] = []
    while waiting or running:
        if limit is not None and time.monotonic() - begun > limit:
            for one in running:
                one.process.kill()
                one.process.wait()
            left = [*(one.step.name for one in running), *(step.name for step in waiting)]
            print(f"stopped after {limit:g} s; left undone: {', '.join(left)}", flush=True)
            return [*failed, *left]
        for one in list(running):
            code = one.process.poll()
            if code is None:
                continue
            running.remove(one)
            free.extend(one.cpus)
            seconds = time.monotonic() - one.since
            good = code == 0 and one.step.result.exists()
            (done.add if good else failed.append)(one.step.name)
            word = "" if good else f"  FAILED ({code}), see {logs}/{_log_name(one.step)}"
            print(
                f"{time.monotonic() - begun:7.1f} s  {one.step.name}: {seconds:.1f} s{word}",
                flush=True,
            )
        hopeless = [step for step in waiting if set(step.needs) & set(failed)]
        failed.extend(step.name for step in hopeless)
        waiting = [step for step in waiting if step not in hopeless]
        for step in list(waiting):
            if not set(step.needs) <= done:
                continue
            at_gpu = sum(one.step.kind == "gpu" for one in running)
            if step.kind == "gpu" and at_gpu >= gpu_places:
                continue
            wanted = {"all": count, "rest": max(1, count - gpu_places)}.get(step.kind, 1)
            if len(free) < wanted:
                if step.kind in ("all", "rest"):
                    break  # the others must not take what it waits for
                continue
            waiting.remove(step)
            cpus = [free.pop(0) for _ in range(wanted)]
            running.append(_start(step, cpus, logs))
        time.sleep(_PAUSE)
    return failed


def _start(step: Step, cpus: list[int], logs: Path) -> _Running:
    # A library that starts a thread a CPU would start too many: it does not see the others.
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    step.result.parent.mkdir(parents=True, exist_ok=True)
    with (logs / _log_name(step)).open("wb") as log:
        process = subprocess.Popen(
            step.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),  # no thread runs here but this one
        )
    return _Running(step, process, cpus, time.monotonic())


def _log_name(step: Step) -> str:
    return f"log-{step.name.replace(':', '-')}.txt"
