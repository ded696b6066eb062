"""A TensorRT bundle's engine: its files, whether it exists, and adding one to the bundle.

Imports nothing heavy: `adopt_engine` runs on the device.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import LABELS, MANIFEST, BundleError, Manifest, RuntimeNeed
from edgekit.bundle.store import Bundle, open_bundle, write_bundle
from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.core.host import host_arch
from edgekit.targets.descriptor import Descriptor
from edgekit.targets.tensorrt_releases import TensorRTFacts

MODEL: Final = "model.onnx"
ENGINE: Final = "engine.plan"
PLUGIN: Final = "libedgekit_tensorrt.so"
SCRIPT: Final = "build_on_device.sh"
_FORMER_PENDING: Final = "pending: build on device"
_FORMER_BUILT: Final = "built on the device with TensorRT "


@dataclass(frozen=True)
class EngineState:
    """Whether a TensorRT bundle has its engine: the manifest's section ``engine``."""

    tensorrt: str = ""
    """The release that built it; empty until it is built on the device."""

    def __post_init__(self) -> None:
        """Refuse anything but a release: only `EngineState()` is pending."""
        if self.tensorrt:
            RuntimeNeed("tensorrt", self.tensorrt, "exact")

    @property
    def pending(self) -> bool:
        """Whether the engine must still be built on the device."""
        return not self.tensorrt

    def describe(self) -> str:
        """The state in a few words."""
        return f"{_FORMER_BUILT}{self.tensorrt}" if self.tensorrt else _FORMER_PENDING

    def to_section(self) -> dict[str, str]:
        """Plain values for the manifest."""
        if self.pending:
            return {"state": "pending"}
        return {"state": "built", "tensorrt": self.tensorrt}

    @classmethod
    def of(cls, manifest: Manifest) -> EngineState | None:
        """The state in a manifest; None for bundles that need no engine."""
        match manifest.sections.get("engine"):
            case None:
                return None
            case {"state": "pending", **rest} if not rest:
                return cls()
            case {"state": "built", "tensorrt": str(release), **rest} if release and not rest:
                return cls(release)
            case str(text) if text == _FORMER_PENDING:  # older manifests had a sentence here
                return cls()
            case str(text) if text.startswith(_FORMER_BUILT) and text != _FORMER_BUILT:
                return cls(text.removeprefix(_FORMER_BUILT))
        raise BundleError(
            f"the section 'engine' of {MANIFEST} makes no sense: build the bundle again"
        )


def engine_pending(manifest: Manifest) -> bool:
    """Whether a bundle waits for its engine."""
    state = EngineState.of(manifest)
    return state is not None and state.pending


def check_engine_built(bundle: Bundle) -> None:
    """Refuse to run a bundle that waits for its engine, with the step that comes next."""
    if engine_pending(bundle.manifest):
        raise ToolchainMissing(
            f"{bundle.path} has no engine yet: {next_step(bundle.path)} builds it on the device "
            f"(so does 'bash {SCRIPT}' in the bundle's folder there)"
        )


def next_step(path: Path) -> str:
    """The command that builds a bundle's engine on its device."""
    return f"'{shlex.join(['edgekit', 'deploy', str(path)])} --device NAME'"


def adopt_engine(path: Path, engine: Path, tensorrt: str, plugin: Path | None = None) -> Manifest:
    """Put a finished engine into the bundle at ``path``, which then runs on this device."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    if manifest.target.backend != "tensorrt":
        raise UsageError(f"{path} is for {manifest.target.backend} and takes no TensorRT engine")
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
        sections={**manifest.sections, "engine": EngineState(tensorrt).to_section()},
    )
    return write_bundle(path, changed, files, bundle.labels)


def tensorrt_facts(descriptor: Descriptor) -> TensorRTFacts:
    """The descriptor's table [tensorrt]; refuses a target without one."""
    if descriptor.tensorrt is None:
        raise UsageError(f"target {descriptor.name} is not a TensorRT device")
    return descriptor.tensorrt
