"""Whether a bundle and a device belong together, said before anything is copied."""

from __future__ import annotations

from edgekit.bundle.manifest import Manifest
from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.devices.facts import DeviceFacts
from edgekit.devices.registry import Device
from edgekit.targets.descriptor import missing_isa
from edgekit.targets.tensorrt_releases import L4T, version


def check_fit(manifest: Manifest, device: Device, facts: DeviceFacts) -> None:
    """Refuse a bundle that this device cannot run, or is registered not to."""
    target = manifest.target
    if device.descriptor and device.descriptor != target.name:
        raise UsageError(
            f"{device.name} is registered as {device.descriptor}, the bundle is for {target.name}: "
            f"build it with '--target {device.descriptor}'"
        )
    here = facts.arch
    for wanted in (target.arch, manifest.arch):
        if wanted not in ("any", "host", here):
            raise UsageError(
                f"the bundle is for {wanted} ({target.name}), {device.name} is {here}: build it "
                "for a target of that device ('edgekit targets')"
            )
    if missing := missing_isa(target, frozenset(facts.flags)):
        raise UsageError(
            f"the bundle holds int8 made for a CPU with {missing}, which {device.name} "
            f"({facts.cpu}) lacks: build it on such a device with '--target cpu'"
        )
    if target.tensorrt is not None:
        _check_tensorrt(manifest, device, facts)


def _check_tensorrt(manifest: Manifest, device: Device, facts: DeviceFacts) -> None:
    wants = manifest.target.tensorrt
    assert wants is not None
    name, target = device.name, manifest.target.name
    if wants.jetpack:
        release = L4T[version(wants.jetpack)[0]]
        if not facts.l4t:
            raise UsageError(f"{target} is a Jetson, {name} ({facts.system}) is none")
        if version(facts.l4t)[0] != release:
            raise UsageError(
                f"{name} has Linux {facts.l4t}, {target} is for JetPack {wants.jetpack} "
                f"(R{release}): build for the JetPack that it has"
            )
    if facts.tensorrt and not wants.covers(facts.tensorrt):
        raise UsageError(
            f"{name} has TensorRT {facts.tensorrt}, {target} is for {wants.tensorrt} up to "
            f"{wants.before}: build for another target"
        )
    if not facts.tensorrt_python:
        raise ToolchainMissing(
            f"{name}: {facts.python_path} has no TensorRT: run 'sudo apt-get install "
            "python3-libnvinfer' there"
        )
