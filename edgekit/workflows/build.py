"""``edgekit build``: from checkpoint to verified bundle, readable on one screen.

    load -> export (folds) -> calibrate -> compile -> bench -> parity -> watch -> report, zip

Where only the device can build the engine, the graph is compared here, and the engine there.
Targets share everything up to *calibrate* through the cache, as far as they agree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, get_args

from edgekit.core.console import Console
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.folders import remove_leftovers
from edgekit.core.step_cache import cache_root
from edgekit.parity.document import GRAPH_SECTION
from edgekit.parity.executors import LOCAL, Executor
from edgekit.steps.build_data import check_inputs
from edgekit.steps.build_record import Outcome, bench_of_build, made_by_build
from edgekit.steps.bundling import check_device, check_engine, engine_elsewhere
from edgekit.steps.config import BuildConfig
from edgekit.steps.context import Context
from edgekit.steps.float_model import known_checkpoint
from edgekit.steps.step import State, Step, look_at, walk
from edgekit.steps.step_names import StepName
from edgekit.targets.descriptor import load_descriptor
from edgekit.workflows.build_steps import (
    Bench,
    BundlePlace,
    Calibrate,
    Compile,
    Export,
    Finish,
    GraphParity,
    Load,
    Measurement,
    Parity,
    TakeFinetuned,
    Watch,
)


@dataclass(frozen=True)
class PlannedStep:
    """One step of a build, and what it would do."""

    step: str
    target: str
    """The target's name; "" for steps that targets share."""
    state: State
    why: str
    """Why it cannot run here; "" if it can."""
    writes: str
    """The file or folder; "" if nothing."""


@dataclass(frozen=True)
class BuildPlan(Document):
    """The steps of a build, in order."""

    SCHEMA: ClassVar = 1

    steps: tuple[PlannedStep, ...]


def build(
    config: BuildConfig,
    console: Console,
    *,
    force: bool = False,
    only: StepName | None = None,
    executor: Executor = LOCAL,
) -> list[Outcome]:
    """Build every target's bundle; ``only`` repeats a single step and those that depend on it."""
    steps = pipeline(config, console, force=force, only=only, executor=executor)
    if executor is not LOCAL and not force and only is None:
        _calibrate_elsewhere(config, steps, executor)
    walk(steps)
    ends = [step for step in steps if isinstance(step, Finish)]
    for end in ends:
        if end.state == "up to date":  # nothing was written, which would have cleaned up
            remove_leftovers(end.place.path)
    return [_outcome(end) for end in ends]


def plan(
    config: BuildConfig, console: Console, *, force: bool = False, only: StepName | None = None
) -> BuildPlan:
    """What `build` would do, step by step, without doing it."""
    steps = pipeline(config, console, force=force, only=only)
    look_at(steps)
    return BuildPlan(tuple(_planned(step) for step in steps if step.name is not None))


def pipeline(
    config: BuildConfig,
    console: Console,
    *,
    force: bool,
    only: StepName | None,
    executor: Executor = LOCAL,
) -> list[Step[Any]]:
    """The steps of a build, each after those it depends on."""
    forced = get_args(StepName) if force else () if only is None else (only,)
    context = Context(console, cache_root(), frozenset(forced), executor)
    descriptors = [load_descriptor(target) for target in config.target]
    if config.plugin is not None and all(item.backend != "tensorrt" for item in descriptors):
        raise UsageError("--plugin is for TensorRT, and no --target is: leave it out")
    recipe = config.calibration()
    loaded = Load(context, config.source())
    trains = "load" in forced and not loaded.given
    if trains or known_checkpoint(context, config.source()) is None:  # which first takes minutes
        check_inputs(config.data, config.labels, config.recipe)
    tolerance = config.most_drop if config.parity else None
    exported = Export(context, loaded, config.data_options(), tolerance, watch=config.watch is True)
    steps: list[Step[Any]] = [loaded, exported]
    calibrations: list[Calibrate] = []
    for descriptor in descriptors:
        check_device(descriptor, console)
        if config.require_engine:
            check_engine(descriptor)
        place = BundlePlace(config, descriptor, loaded)
        quantized: Calibrate | TakeFinetuned | None = None
        if config.precision_of(descriptor) == "int8" and config.quantized is not None:
            quantized = TakeFinetuned(context, exported, descriptor, config.quantized)
        elif config.precision_of(descriptor) == "int8":
            quantized = Calibrate(context, exported, descriptor, recipe, tuple(calibrations))
            calibrations.append(quantized)
            exported.reads.add("calibration")
        compiled = Compile(context, place, exported, quantized)
        measured: list[Measurement[Any]] = []
        if config.bench:
            measured.append(Bench(context, compiled))
        if config.parity:
            measured.append(Parity(context, compiled))
            if engine_elsewhere(descriptor):
                measured.append(GraphParity(context, compiled))
            if any(not step.why for step in measured if isinstance(step, Parity | GraphParity)):
                exported.reads.add("test")
        if config.watch is not False:
            measured.append(Watch(context, compiled, optional=config.watch is None))
        ends: list[Step[Any]] = [compiled, *measured, Finish(context, compiled, measured)]
        own = ends if quantized is None else [quantized, *ends]
        for step in own:
            step.needed_for = ends
        exported.needed_for = [*exported.needed_for, *ends]
        steps += own
    if only is not None and all(step.name != only for step in steps):
        raise UsageError(f"--only {only}: this build has no such step")
    return steps


def _calibrate_elsewhere(
    config: BuildConfig, steps: Sequence[Step[Any]], executor: Executor
) -> None:
    """Let other machines that share the cache calibrate targets at the same time.

    The build then finds the results as those of an earlier one, or calibrates what is missing.
    """
    look_at(steps)
    due = [step for step in steps if isinstance(step, Calibrate) and step.state == "to do"]
    if len(due) > 1:
        walk(step for step in steps if isinstance(step, Load | Export))  # what they all need
        where = str(cache_root().absolute()), str(Path.cwd())
        executor.prepare([partial(calibrate_alone, config, step.target, *where) for step in due])


def calibrate_alone(config: BuildConfig, target: str, cache: str, folder: str) -> None:
    """Put a target's calibration into ``cache``; relative paths are meant from ``folder``."""
    os.environ["EDGEKIT_CACHE"] = cache
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(f"{folder} is not on all machines ({error.strerror})") from error
    only = replace(config, target=(target,), bench=False, parity=False, watch=False, baseline=None)
    steps = pipeline(only, Console(verbosity=-1), force=False, only=None)
    walk(step for step in steps if isinstance(step, Load | Export | Calibrate))


def _outcome(end: Finish) -> Outcome:
    """A target's outcome, from this build or an earlier one."""
    place, earlier = end.place, end.place.earlier
    if end.state == "up to date" and earlier is not None:
        # `edgekit parity` may have replaced the build's own evidence.
        parity = made_by_build(earlier.sections.get("parity"), place.config)
        graph = made_by_build(earlier.sections.get(GRAPH_SECTION), place.config, "graph")
        bench = bench_of_build(earlier.sections.get("bench"))
    else:
        measured = [step for step in end.measured if not step.why]
        parity = next((step.result for step in measured if isinstance(step, Parity)), None)
        graph = next((step.result for step in measured if isinstance(step, GraphParity)), None)
        bench = next((step.result for step in measured if isinstance(step, Bench)), None)
    return Outcome(place.descriptor.name, place.path, not end.reruns, bench, parity, graph)


def _planned(step: Step[Any]) -> PlannedStep:
    writes = "" if step.why else step.writes
    return PlannedStep(str(step.name), step.target, step.state, step.why, writes)
