"""What a device is and has; runs there, under its own Python (3.7 or newer, nothing installed).

Sent to the agent as source. It only reads; what a device does not tell is left empty.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


def gather(folder: str) -> dict[str, Any]:
    """All facts as plain values; ``folder`` is edgekit's own on this device."""
    root = Path(folder)
    return {
        "machine": platform.machine(),
        "hostname": platform.node(),
        "system": _system(),
        "kernel": platform.release(),
        "l4t": _l4t(),
        "jetpack": _package("nvidia-jetpack"),
        "model": _text("/proc/device-tree/model"),
        "machine_id": _text("/etc/machine-id"),
        "cpu": _cpu(),
        "flags": _flags(),
        "cores": _cores(),
        "memory_mib": _memory("MemTotal"),
        "memory_free_mib": _memory("MemAvailable"),
        "free_bytes": _free(root),
        "python": platform.python_version(),
        "python_path": sys.executable,
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "power_mode": _power_mode(),
        "gpu": _gpu(),
        "tensorrt": _tensorrt(),
        "tensorrt_python": importlib.util.find_spec("tensorrt") is not None,
        "trtexec": _tool("trtexec", "/usr/src/tensorrt/bin/trtexec"),
        "nvcc": _tool("nvcc", "/usr/local/cuda/bin/nvcc"),
        "cmake": _tool("cmake"),
        "compiler": _tool("g++") or _tool("c++"),
        "runtimes": _runtimes(root),
        "packages": _packages("openvino", "onnxruntime", "tensorrt"),
        "bundles": _bundles(root),
    }


def _system() -> str:
    text = _text("/etc/os-release")
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match.group(1) if match else platform.system()


def _l4t() -> str:
    """NVIDIA's Linux release on a Jetson, such as "36.4.3"."""
    match = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", _text("/etc/nv_tegra_release"))
    return match.group(1) + "." + match.group(2) if match else ""


def _package(name: str) -> str:
    """The version of a Debian package."""
    return _run("dpkg-query", "-W", "-f", "${Version}", name)


def _cpu() -> str:
    text = _text("/proc/cpuinfo")
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.*)$", text, re.MULTILINE)
    if match:
        return match.group(1).strip()
    part = re.search(r"^CPU part\s*:\s*(\S+)", text, re.MULTILINE)
    return platform.machine() + (" part " + part.group(1) if part else "")


def _flags() -> list[str]:
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return sorted(match.group(1).split()) if match else []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory(name: str) -> int:
    match = re.search(r"^" + name + r":\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) // 1024 if match else 0


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(str(folder)).free


def _power_mode() -> str:
    """A Jetson's, as nvpmodel calls it."""
    lines = _run("nvpmodel", "-q").splitlines()
    for line in lines:
        if "NV Power Mode" in line:
            return line.split(":", 1)[1].strip()
    return ""


def _gpu() -> str:
    line = _run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if line:
        return line.splitlines()[0]
    return "Jetson's own" if Path("/dev/nvhost-gpu").exists() or Path("/dev/nvgpu").exists() else ""


def _tensorrt() -> str:
    """The installed TensorRT's version, such as "10.3.0.30"."""
    for name in ("libnvinfer10", "libnvinfer8", "libnvinfer-bin"):
        version = _package(name)
        if version:
            return version.split("-")[0]
    return ""


def _tool(name: str, usual: str = "") -> str:
    path = shutil.which(name)
    return path or (usual if usual and os.access(usual, os.X_OK) else "")


def _runtimes(root: Path) -> dict[str, str]:
    """The environments that edgekit made here, each with what pip had to install."""
    environments = {}
    for stamp in sorted(root.glob("runtimes/*/edgekit-runtime.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            content = json.loads(stamp.read_text(encoding="utf-8"))
            environments[stamp.parent.name] = str(content.get("requirement", ""))
    return environments


def _packages(*names: str) -> dict[str, str]:
    """Runtimes in the device's own Python: edgekit does not use them, the user may want to know."""
    try:
        from importlib import metadata
    except ImportError:  # before Python 3.8
        return {}
    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _bundles(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("bundles/[!.]*/manifest.json"))


def _text(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.strip("\0\n ")


def _run(*command: str) -> str:
    """What a tool prints; "" if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
