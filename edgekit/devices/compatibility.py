"""Checks that a bundle fits a device, before anything is copied."""

from __future__ import annotations

from edgekit.bundle.manifest import Manifest
from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.devices.facts import DeviceFacts
from edgekit.devices.registry import Device
from edgekit.targets.descriptor import missing_isa
from edgekit.targets.tensorrt_releases import L4T, describe_l4t, version


def check_fit(manifest: Manifest, device: Device, facts: DeviceFacts) -> None:
    """Refuse a bundle that this device cannot run or is not registered for."""
    target = manifest.target
    if device.descriptor and device.descriptor != target.name:
        raise UsageError(
            f"{device.name} is registered as {device.descriptor}, the bundle is for {target.name}: "
            f"build it with '--target {device.descriptor}'"
        )
    here = facts.arch
    for arch in (target.arch, manifest.arch):
        if arch not in ("any", "host", here):
            raise UsageError(
                f"the bundle is for {arch} ({target.name}), {device.name} is {here}: build it "
                "for a target that fits the device ('edgekit targets')"
            )
    if missing := missing_isa(target, frozenset(facts.flags)):
        raise UsageError(
            f"the bundle's INT8 needs a CPU with {missing}, which {device.name} "
            f"({facts.cpu}) lacks: build it on such a device with '--target cpu'"
        )
    if target.tensorrt is not None:
        _check_tensorrt(manifest, device, facts)


def _check_tensorrt(manifest: Manifest, device: Device, facts: DeviceFacts) -> None:
    required = manifest.target.tensorrt
    assert required is not None
    name, target = device.name, manifest.target.name
    if required.jetpack:
        release = L4T[version(required.jetpack)[0]]
        if not facts.l4t:
            raise UsageError(f"{target} is for a Jetson, and {name} ({facts.system}) is not one")
        if version(facts.l4t)[0] != release:
            raise UsageError(
                f"{name} has {describe_l4t(facts.l4t)}, {target} is for JetPack "
                f"{required.jetpack}: build for the JetPack it has"
            )
    if facts.tensorrt and not required.covers(facts.tensorrt):
        whose = f" of JetPack {required.jetpack}" if required.jetpack else ""
        system = f", with {describe_l4t(facts.l4t)}" if facts.l4t else ""
        raise UsageError(
            f"{name} has TensorRT {facts.tensorrt}{system}; {target} is for TensorRT "
            f"{required.tensorrt} up to {required.before}{whose}: build for another target"
        )
    if not facts.tensorrt_python:
        raise ToolchainMissing(
            f"{name}: {facts.python_path} has no TensorRT: run 'sudo apt-get install "
            "python3-libnvinfer' there"
        )
