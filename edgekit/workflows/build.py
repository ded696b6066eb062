"""``edgekit build``: from checkpoint to verified bundle, readable on one screen.

    load -> export (folds) -> calibrate -> compile -> bench -> parity -> zip

Everything up to *calibrate* is shared by the targets where they agree, through the cache.
"""

from __future__ import annotations

from typing import Any

from edgekit import steps
from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.step_cache import cache_root, find
from edgekit.report.page import write_report
from edgekit.steps.build_data import BuildData, check_inputs
from edgekit.steps.build_record import Outcome, build_key, finished
from edgekit.steps.config import BuildConfig
from edgekit.targets.descriptor import Descriptor, load_descriptor, why_not_here
from edgekit.targets.dialects import find_dialect

STEPS = ("load", "export", "calibrate", "compile", "bench", "parity")


def build(
    config: BuildConfig, console: Console, *, force: bool = False, only: str | None = None
) -> list[Outcome]:
    """Build every target's bundle; ``only`` does a single step again and what follows from it."""
    forced = frozenset(STEPS if force else () if only is None else (only,))
    job = steps.Job(config, console, cache_root(), forced)
    descriptors = [load_descriptor(target) for target in config.target]
    if config.plugin is not None and all(item.backend != "tensorrt" for item in descriptors):
        raise UsageError("--plugin is for TensorRT, and no --target is: leave it out")
    if config.require_engine:
        for descriptor in descriptors:
            steps.check_engine(descriptor)
    if steps.known_checkpoint(job) is None:  # it is trained first, for minutes
        check_inputs(config.data, config.labels, config.recipe)
    checkpoint = steps.load(job)
    outcomes = []
    for descriptor in descriptors:
        key = build_key(config, descriptor, checkpoint.sha256)
        done = None if forced else finished(config, descriptor, key)
        outcomes.append(done or _build_target(job, checkpoint, descriptor, key))
    return outcomes


def _build_target(
    job: steps.Job, checkpoint: steps.Checkpoint, descriptor: Descriptor, key: str
) -> Outcome:
    exported = steps.export(job, checkpoint)
    data = steps.open_build_data(job, exported)
    exported = steps.name_classes(job, exported, data)
    quantized = steps.quantize(job, exported, data, descriptor)
    built = steps.compile_bundle(job, quantized, descriptor, key, data)
    reason = built.why_not_measured()
    if reason is not None:
        job.console.info(f"bench, parity ({descriptor.name}): not measured here: {reason}")
    benched = None if reason else _bench(job, built)
    compared = None if reason else _parity(job, built, data)
    write_report(built.path)
    steps.complete(job, built, key)
    steps.pack(job, built)
    return Outcome(descriptor.name, built.path, False, benched, compared)


def _bench(job: steps.Job, built: steps.Built) -> dict[str, Any] | None:
    if not job.config.bench:
        return None
    from edgekit.steps.benchmark import bench

    return bench(job, built)


def _parity(job: steps.Job, built: steps.Built, data: BuildData) -> dict[str, Any] | None:
    if not job.config.parity:
        return None
    from edgekit.workflows.parity import parity_of_build

    return parity_of_build(job, built, data)


def plan(config: BuildConfig, console: Console, *, force: bool = False) -> list[dict[str, str]]:
    """What `build` would do, step by step, without doing it."""
    job = steps.Job(config, console, cache_root())
    checkpoint = None if force else steps.known_checkpoint(job)
    rows = [_planned("load", "", "cached" if checkpoint else "to do", str(job.cache / "builtin"))]
    if config.checkpoint is not None:
        rows = [_planned("load", "", "given", config.checkpoint)]
    exported = steps.cached_export(job, checkpoint) if checkpoint else None
    rows.append(_planned("export", "", _state(exported is not None), str(job.cache / "export")))
    data = steps.open_build_data(job, exported) if exported else None
    for target in config.target:
        descriptor = load_descriptor(target)
        path = str(steps.bundle_path(config, descriptor))
        done = (
            checkpoint is not None
            and not force
            and (finished(config, descriptor, build_key(config, descriptor, checkpoint.sha256)))
        )
        calibrated = False
        if exported and data and steps.precision(config, descriptor) == "int8":
            inputs = steps.calibration_inputs(job, exported, data, find_dialect(descriptor.dialect))
            calibrated = find(job.cache, "calibrate", inputs, console) is not None
        if config.quantized is not None:
            rows.append(_planned("calibrate", descriptor.name, "given", config.quantized))
        elif steps.precision(config, descriptor) == "int8":
            where = str(job.cache / "calibrate")
            rows.append(_planned("calibrate", descriptor.name, _state(calibrated), where))
        state = "up to date" if done else "to do"
        rows.append(_planned("compile", descriptor.name, state, path))
        here = why_not_here(descriptor) is None
        for step, wanted in (("bench", config.bench), ("parity", config.parity)):
            if wanted and here:
                rows.append(_planned(step, descriptor.name, state, path))
    return rows


def _planned(step: str, target: str, state: str, writes: str) -> dict[str, str]:
    return {"step": step, "target": target, "state": state, "writes": writes}


def _state(cached: bool) -> str:
    return "cached" if cached else "to do"
