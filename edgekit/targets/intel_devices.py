"""Intel's GPUs and NPUs: whether this machine has one, as far as it shows without OpenVINO.

Nobody who wrote this has seen either: what is known is what Linux and OpenVINO document, and what
OpenVINO does where there is none.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

from edgekit.core.host import host_arch

_INTEL: Final = "0x8086"  # PCI's number of the vendor
REMEDIES: Final = {
    "GPU": "an Intel GPU and its OpenCL driver (apt-get install intel-opencl-icd)",
    "NPU": "an Intel NPU and its driver (packages intel-driver-compiler-npu, intel-fw-npu and "
    "intel-level-zero-npu from github.com/intel/linux-npu-driver)",
}
UNSEEN: Final = "written from documentation: its authors had no Intel GPU or NPU to try it on"


def why_no_device(device: str, root: Path = Path("/")) -> str | None:
    """Why OpenVINO will find no such device (GPU or NPU) on this machine, or None."""
    remedy = f"needs {REMEDIES[device]}"
    if host_arch() != "x86_64":
        return f"{remedy}: this machine is {host_arch()}"
    nodes = (
        _intel(root, "class/drm", "renderD*")
        if device == "GPU"
        else _intel(root, "class/accel", "accel*")
    )
    if not nodes:
        return f"{remedy}: Linux shows none"
    if device == "GPU" and not _loads("libOpenCL.so.1"):
        return f"{remedy}: the GPU is there, libOpenCL.so.1 is not"
    if device == "NPU" and not _loads("libze_loader.so.1"):
        return f"{remedy}: the NPU is there, libze_loader.so.1 is not"
    return None


def _intel(root: Path, folder: str, pattern: str) -> list[Path]:
    """Devices of a class whose vendor is Intel."""
    found = []
    for entry in sorted((root / "sys" / folder).glob(pattern)):
        try:
            vendor = (entry / "device/vendor").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        if vendor.strip() == _INTEL:
            found.append(entry)
    return found


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
