"""``edgekit doctor``: what this machine can build and run, and what to do about the rest.

Imports none of the heavy packages; their versions come from their metadata. Only the native
library is loaded and called, because that proves more.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from edgekit.core.checks import Check
from edgekit.core.documents import Document
from edgekit.core.errors import EdgekitError, ToolchainMissing
from edgekit.core.host import cpu_flags, usable_threads
from edgekit.core.packages import install_command
from edgekit.targets.intel_devices import REMEDIES, why_no_device
from edgekit.targets.tensorrt_releases import describe_l4t

# Packages that build the default target (OpenVINO on this machine's CPU).
_REQUIRED = ("torch", "nncf", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class DoctorReport(Document):
    """What this machine can build and run."""

    SCHEMA: ClassVar = 1

    ready: bool
    """Whether the default target (OpenVINO on this CPU) can be built."""
    checks: tuple[Check, ...]


def examine() -> list[Check]:
    """Every check, in display order."""
    return [
        _python(),
        _isa(),
        Check("cores", "ok", str(usable_threads())),
        _memory(),
        *(_package(name) for name in _REQUIRED),
        _tensorrt(),
        _trtexec(),
        _cuda(),
        _nvcc(),
        _jetpack(),
        *(_intel(device) for device in REMEDIES),
        _native(),
        _extension(),
    ]


def default_target_ready(checks: list[Check]) -> bool:
    """Whether `edgekit build` with no arguments can work here."""
    return all(check.status in ("ok", "warning") for check in checks if check.needed)


def _python() -> Check:
    version = platform.python_version()
    return Check("Python", "ok", f"{version} on {platform.system()} {platform.machine()}")


def _isa() -> Check:
    flags = cpu_flags()
    features = [
        label
        for flag, label in (
            ("avx512_vnni", "AVX-512 VNNI"),
            ("avx_vnni", "AVX-VNNI"),
            ("avx2", "AVX2"),
            ("asimddp", "NEON dotprod"),
        )
        if flag in flags
    ]
    if features:
        return Check("ISA", "ok", ", ".join(features))
    return Check(
        "ISA",
        "warning",
        f"{platform.machine()}, no int8 dot products",
        "INT8 works here, but slowly: a CPU with AVX2 or NEON dotprod runs it fast",
    )


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if total < 3.5:
        fix = "calibrate ResNet-50-sized models on a machine with 4 GiB or more"
        return Check("memory", "warning", f"{total:.1f} GiB", fix)
    return Check("memory", "ok", f"{total:.1f} GiB")


def _package(name: str) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "missing", "not installed", install_command("build"), needed=True)
    pin = _pins().get(name)
    if pin is not None and not _matches(version, pin):
        return Check(
            name, "warning", f"{version}, tested with {pin}", install_command("build"), needed=True
        )
    return Check(name, "ok", version, needed=True)


def _pins() -> dict[str, str]:
    """Exact pins of this installation's own metadata, as ``{"openvino": "2026.4.1"}``."""
    try:
        requirements = metadata.requires("edgekit") or []
    except metadata.PackageNotFoundError:
        return {}
    pins = {}
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)\s*==\s*([0-9.*]+)", requirement)
        if match:
            pins[match[1].lower()] = match[2]
    return pins


def _matches(version: str, pin: str) -> bool:
    public = version.split("+")[0]
    return public.startswith(pin[:-1]) if pin.endswith(".*") else public == pin


def _tensorrt() -> Check:
    try:
        return Check("tensorrt", "ok", metadata.version("tensorrt"))
    except metadata.PackageNotFoundError:
        fix = "for Jetson targets, on the device: part of JetPack (apt install nvidia-jetpack)"
        return Check("tensorrt", "none", "not installed", fix)


def _trtexec() -> Check:
    path = shutil.which("trtexec") or "/usr/src/tensorrt/bin/trtexec"
    if Path(path).exists():
        return Check("trtexec", "ok", path)
    return Check(
        "trtexec",
        "none",
        "not found",
        "engines are built on the device, where JetPack has it in /usr/src/tensorrt/bin",
    )


def _cuda() -> Check:
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        version = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", driver.read_text(encoding="utf-8"))
        return Check("CUDA", "ok", f"driver {version[1] if version else 'of unknown version'}")
    if Path("/dev/nvhost-gpu").exists() or Path("/dev/nvgpu").exists():
        return Check("CUDA", "ok", "Jetson's integrated GPU")
    return Check("CUDA", "none", "no NVIDIA driver", "needed only to run TensorRT engines")


def _nvcc() -> Check:
    path = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(path).exists():
        fix = "needed only to compile the TensorRT plugin (apt install cuda-nvcc-12-6, or JetPack)"
        return Check("nvcc", "none", "not found", fix)
    try:
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check("nvcc", "warning", f"{path} does not run", f"reinstall it ({error})")
    version = re.search(r"release (\d+\.\d+)", text)
    return Check("nvcc", "ok", version[1] if version else path)


def _jetpack() -> Check:
    release = Path("/etc/nv_tegra_release")
    if not release.exists():
        return Check("JetPack", "none", "not a Jetson")
    line = release.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    match = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", line)
    return Check("JetPack", "ok", describe_l4t(f"{match[1]}.{match[2]}") if match else line)


def _intel(device: str) -> Check:
    """An Intel device that OpenVINO may use, as Linux shows it."""
    reason = why_no_device(device)
    name = f"Intel {device}"
    if reason is None:
        return Check(name, "ok", f"for targets openvino-{device.lower()} and openvino-auto")
    fix = f"only target openvino-{device.lower()} {reason.partition(': ')[0]}"
    return Check(name, "none", reason.partition(": ")[2], fix)


def _native() -> Check:
    """Load the library and look up two vectors with known answers."""
    import numpy as np

    from edgekit.native import codebook as native

    fix = "pip install --force-reinstall --no-deps edgekit (needs a C++20 compiler: g++)"
    codebook = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    queries = np.array([[0.1, 0.2, 0.9], [0.8, 0.3, 0.1]], dtype=np.float32)
    try:
        with native.Codebook(codebook) as book:
            indices = book.lookup(queries).indices.tolist()
            path = book.describe().get("path", "")
    except EdgekitError as error:
        return Check("native library", "missing", str(error), fix, needed=True)
    if indices != [2, 0]:
        wrong = f"loaded, but a lookup gave {indices} instead of [2, 0]"
        return Check("native library", "missing", wrong, fix, needed=True)
    return Check("native library", "ok", f"loaded, lookup correct ({path} path)", needed=True)


def _extension() -> Check:
    """Load our OpenVINO operator and run one lookup, without OpenVINO's Python package."""
    from edgekit.native.openvino_extension import check_extension

    name, fix = (
        "OpenVINO operator",
        "without it the lookup runs in OpenVINO's own operators, more slowly",
    )
    try:
        return Check(name, "ok", check_extension(), needed=True)
    except ToolchainMissing as error:
        return Check(name, "warning", str(error), fix, needed=True)
    except EdgekitError as error:
        return Check(name, "missing", str(error), "report this as a bug", needed=True)
