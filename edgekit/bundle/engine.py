"""A TensorRT bundle's engine: the names of its files, and putting a finished one into the bundle.

Imports nothing heavy: `adopt_engine` runs on the device.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import LABELS, Manifest, RuntimeNeed
from edgekit.bundle.store import open_bundle, write_bundle
from edgekit.core.errors import UsageError
from edgekit.core.host import host_arch
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.tensorrt_releases import TensorRTFacts

MODEL: Final = "model.onnx"
ENGINE: Final = "engine.plan"
PLUGIN: Final = "libedgekit_tensorrt.so"
SCRIPT: Final = "build_on_device.sh"
PENDING: Final = "pending: build on device"
"""The manifest's section ``engine`` until there is one."""


def adopt_engine(path: Path, engine: Path, tensorrt: str, plugin: Path | None = None) -> Manifest:
    """Put a finished engine into the bundle at ``path``, which then runs on this device."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    if manifest.target.backend != "tensorrt":
        raise UsageError(f"{path} is for {manifest.target.backend}, it takes no TensorRT engine")
    if path.is_file():
        raise UsageError(f"{path} is a .zip: unpack it, and build the engine in the folder")
    facts = tensorrt_facts(manifest.target)
    if not facts.covers(tensorrt):
        raise UsageError(
            f"the engine was built with TensorRT {tensorrt}, target {manifest.target.name} is for "
            f"{facts.tensorrt} up to {facts.before}: build for another target"
        )
    files: dict[str, Path | bytes] = {
        name: bundle.folder / name for name in manifest.files if name != LABELS
    }
    files[ENGINE] = engine
    if plugin is not None:
        files[PLUGIN] = plugin
    changed = dataclasses.replace(
        manifest,
        main=ENGINE,
        plugins=(PLUGIN,) if plugin is not None else (),
        arch=host_arch() if plugin is not None else "any",
        runtime=RuntimeNeed("tensorrt", tensorrt, "exact"),
        sections={**manifest.sections, "engine": f"built on the device with TensorRT {tensorrt}"},
    )
    return write_bundle(path, changed, files, bundle.labels)


def tensorrt_facts(descriptor: Descriptor) -> TensorRTFacts:
    """The descriptor's table [tensorrt]; refuses a target that has none."""
    if descriptor.tensorrt is None:
        raise UsageError(f"target {descriptor.name} is not a TensorRT device")
    return descriptor.tensorrt
