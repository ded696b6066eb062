"""``edgekit build``: from checkpoint to verified bundle, readable on one screen.

    load -> export (folds) -> calibrate -> compile -> bench -> parity -> zip

Everything up to *calibrate* is shared by the targets where they agree, through the cache.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit import steps
from edgekit.bundle import open_bundle
from edgekit.cache import cache_root, find
from edgekit.config import BuildConfig
from edgekit.console import Console
from edgekit.descriptors import Descriptor, load_descriptor, why_not_here
from edgekit.errors import UsageError
from edgekit.files import file_sha256
from edgekit.manifest import BundleError, tool_versions
from edgekit.quantize.dialects import find_dialect
from edgekit.quantize.recipes import read_recipe
from edgekit.report import write_report
from edgekit.source import BuildData, data_fingerprint

STEPS = ("load", "export", "calibrate", "compile", "bench", "parity")
# Settings that change no bundle, and those of which the content counts rather than the name.
_OUTSIDE_KEY = (
    *("out", "target", "zip", "require_engine"),
    *("checkpoint", "labels", "recipe", "plugin", "quantized"),
)


@dataclass(frozen=True)
class Outcome:
    """One target's bundle and what was measured of it."""

    target: str
    path: Path
    up_to_date: bool
    bench: dict[str, Any] | None
    parity: dict[str, Any] | None

    @property
    def verdict(self) -> str:
        """Parity's verdict, or why there is none."""
        return str((self.parity or {}).get("verdict", "not measured"))


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
    from edgekit.measure import bench

    return bench(job, built)


def _parity(job: steps.Job, built: steps.Built, data: BuildData) -> dict[str, Any] | None:
    if not job.config.parity:
        return None
    from edgekit.parity.run import parity_of_build

    return parity_of_build(job, built, data)


def finished(config: BuildConfig, descriptor: Descriptor, key: str) -> Outcome | None:
    """The outcome of an earlier build of the same thing, if its bundle is whole."""
    try:
        bundle = open_bundle(steps.bundle_path(config, descriptor))
    except BundleError:
        return None
    sections = bundle.manifest.sections
    made = sections.get("build", {})
    if made.get("key") != key or not made.get("complete"):
        return None
    if config.parity:
        from edgekit.parity.settings import made_by_build

        # `edgekit parity` may have put another comparison in its place.
        if not made_by_build(sections.get("parity"), config):
            return None
    return Outcome(
        descriptor.name, bundle.path, True, sections.get("bench"), sections.get("parity")
    )


def build_key(config: BuildConfig, descriptor: Descriptor, checkpoint_sha256: str) -> str:
    """The SHA-256 of all that a finished bundle depends on."""
    settings = asdict(config)
    for name in _OUTSIDE_KEY:
        del settings[name]
    document = {
        "settings": settings,
        "checkpoint": checkpoint_sha256,
        "labels": None if config.labels is None else _file_hash(config.labels),
        "plugin": None if config.plugin is None else _file_hash(config.plugin),
        "quantized": None if config.quantized is None else _file_hash(config.quantized),
        "recipe": asdict(read_recipe(config.recipe)),
        "data": data_fingerprint(config.data),
        "descriptor": asdict(descriptor),
        "tools": tool_versions(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


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


def _file_hash(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
