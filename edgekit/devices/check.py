"""``edgekit device check``: what a device is, what it can run, and what to do about the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from edgekit.core.checks import Check
from edgekit.core.documents import Document
from edgekit.devices.facts import DeviceFacts, gather_facts
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import Session
from edgekit.targets.descriptor import Descriptor, load_descriptor
from edgekit.targets.tensorrt_releases import L4T, describe_l4t, version

_ENOUGH_SPACE: Final = 1 << 30  # bytes; a runtime, a bundle and its engine take less
_ISA: Final = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx2": "AVX2",
    "asimddp": "NEON dotprod",
}


@dataclass(frozen=True)
class CheckedDevice:
    """What a device has, or why it could not be asked."""

    name: str
    ready: bool
    """Whether it has everything that its target needs."""
    checks: tuple[Check, ...] = ()
    facts: DeviceFacts | None = None
    error: str | None = None


@dataclass(frozen=True)
class CheckedDevices(Document):
    """Every device that was asked for."""

    SCHEMA: ClassVar = 1

    devices: tuple[CheckedDevice, ...]


def examine(session: Session) -> tuple[list[Check], DeviceFacts]:
    """Every check of a device, in display order, and the facts behind them."""
    root = session.call(remote_files, "home", session.device.folder).text()
    facts = gather_facts(session, root)
    name = session.device.descriptor
    return checks(facts, load_descriptor(name) if name else None), facts


def checks(facts: DeviceFacts, descriptor: Descriptor | None) -> list[Check]:
    """What the facts mean for bundles in general, or for those of ``descriptor``."""
    tensorrt = descriptor is not None and descriptor.backend == "tensorrt"
    jetson = bool(facts.l4t)
    results = [
        _plain("system", " ".join(filter(None, [facts.system, facts.model]))),
        _architecture(facts, descriptor),
        _plain("CPU", f"{facts.cpu}, {facts.cores} cores"),
        _isa(facts, descriptor),
        _plain("memory", f"{facts.memory_mib} MiB, {facts.memory_free_mib} available"),
        _space(facts),
        _jetpack(facts, descriptor),
        _power(facts),
        _python(facts),
        _venv(facts),
        _runtimes(facts),
    ]
    if tensorrt or jetson or facts.tensorrt:
        results += _tensorrt(facts, descriptor, needed=tensorrt)
    bundles = ", ".join(facts.bundles)
    return [*results, _plain("bundles", bundles or "none yet: edgekit deploy BUNDLE --device NAME")]


def _plain(name: str, value: str) -> Check:
    return Check(name, "ok" if value else "none", value or "unknown")


def _architecture(facts: DeviceFacts, descriptor: Descriptor | None) -> Check:
    here = facts.arch
    if descriptor is None or descriptor.arch in ("any", "host", here):
        return Check("architecture", "ok", here, needed=True)
    fix = f"register it with a target other than {descriptor.name} ('edgekit targets')"
    mismatch = f"{here}, {descriptor.name} is {descriptor.arch}"
    return Check("architecture", "missing", mismatch, fix, needed=True)


def _isa(facts: DeviceFacts, descriptor: Descriptor | None) -> Check:
    known = [label for flag, label in _ISA.items() if flag in facts.flags]
    if known:
        return Check("ISA", "ok", ", ".join(known))
    if descriptor is not None and descriptor.backend == "tensorrt":
        return Check("ISA", "none", "no int8 dot products", "not needed: the GPU computes")
    return Check("ISA", "warning", "no int8 dot products", "INT8 works on this CPU, but slowly")


def _space(facts: DeviceFacts) -> Check:
    free = f"{facts.free_bytes / 1e9:.1f} GB free"
    if facts.free_bytes >= _ENOUGH_SPACE:
        return Check("space", "ok", free)
    fix = "make room, or put edgekit elsewhere: edgekit device add ... --folder"
    return Check("space", "warning", free, fix)


def _jetpack(facts: DeviceFacts, descriptor: Descriptor | None) -> Check:
    required = descriptor.tensorrt.jetpack if descriptor and descriptor.tensorrt else ""
    if not facts.l4t:
        if not required:
            return Check("JetPack", "none", "not a Jetson")
        return Check("JetPack", "missing", "not a Jetson", "register another target", needed=True)
    release = describe_l4t(facts.l4t)
    if facts.jetpack:  # the package says more than the release of Linux
        release = f"JetPack {facts.jetpack} (Linux R{facts.l4t})"
    if required and version(facts.l4t)[0] != L4T[version(required)[0]]:
        fix = f"build for the JetPack it has; its target is for {required}"
        return Check("JetPack", "missing", release, fix, needed=True)
    return Check("JetPack", "ok", release)


def _power(facts: DeviceFacts) -> Check:
    parts = [facts.power_mode, facts.governor and f"governor {facts.governor}"]
    return _plain("power mode", ", ".join(filter(None, parts)))


def _python(facts: DeviceFacts) -> Check:
    interpreter = f"{facts.python} ({facts.python_path})"
    if version(facts.python)[:2] >= (3, 10):
        return Check("Python", "ok", interpreter, needed=True)
    fix = "install Python 3.10 or newer there, then: edgekit device add ... --python PATH"
    return Check("Python", "missing", interpreter, fix, needed=True)


def _venv(facts: DeviceFacts) -> Check:
    if facts.venv or facts.runtimes:
        return Check("venv", "ok", "available", needed=True)
    return Check("venv", "missing", "", "sudo apt-get install python3-venv", needed=True)


def _runtimes(facts: DeviceFacts) -> Check:
    listing = ", ".join(facts.runtimes) or "none yet"
    if others := ", ".join(f"{name} {release}" for name, release in facts.packages.items()):
        listing += f" (in its own Python: {others})"
    if facts.runtimes:
        return Check("runtimes", "ok", listing)
    return Check("runtimes", "none", listing, "edgekit deploy installs what a bundle needs")


def _tensorrt(facts: DeviceFacts, descriptor: Descriptor | None, *, needed: bool) -> list[Check]:
    """What builds and runs an engine."""
    required = descriptor.tensorrt if descriptor else None
    cuda = ".".join(required.cuda.split(".")[:2]).replace(".", "-") if required else "12-6"
    fits = not required or not facts.tensorrt or required.covers(facts.tensorrt)
    tensorrt = Check("TensorRT", "ok", facts.tensorrt, needed=needed)
    if not facts.tensorrt:
        fix = "sudo apt-get install nvidia-jetpack"
        tensorrt = Check("TensorRT", "missing", "not installed", fix, needed)
    elif required and not fits:
        fix = f"its target is for {required.tensorrt} up to {required.before}: register another"
        tensorrt = Check("TensorRT", "missing", facts.tensorrt, fix, needed)
    python = "for Python" if facts.tensorrt_python else ""
    return [
        tensorrt,
        _tool("TensorRT's Python", python, "sudo apt-get install python3-libnvinfer", needed),
        _tool("trtexec", facts.trtexec, "sudo apt-get install libnvinfer-bin", needed),
        _tool("nvcc", facts.nvcc, f"sudo apt-get install cuda-nvcc-{cuda}", needed),
        _tool("cmake", facts.cmake, "sudo apt-get install cmake", needed),
        _tool("C++ compiler", facts.compiler, "sudo apt-get install g++", needed),
        _plain("GPU", facts.gpu),
    ]


def _tool(name: str, path: str, fix: str, needed: bool) -> Check:
    if path:
        return Check(name, "ok", path, needed=needed)
    return Check(name, "missing" if needed else "none", "not found", fix, needed)
