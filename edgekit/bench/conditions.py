"""The conditions of a benchmark: processor, clocks, limits, temperatures, versions, load.

Everything is read from files that Linux provides, so it works on any board without more packages;
what a machine does not report is None. Only tests pass another ``root``.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from edgekit.core.host import cpu_quota, usable_threads

_CPUS: Final = "sys/devices/system/cpu"
_PACKAGES: Final = ("edgekit", "numpy", "openvino", "onnxruntime", "tensorrt")


@dataclass(frozen=True)
class Cores:
    """The machine's cores, those usable by the process, and its container's limit."""

    machine: int | None
    usable: int | None
    limit: float | None


@dataclass(frozen=True)
class State:
    """What varies during a run."""

    mhz: float | None
    celsius: Mapping[str, float]
    throttled: int | None
    load: float | None


@dataclass(frozen=True)
class Conditions:
    """The conditions of a benchmark; None where the machine does not report them."""

    host: str
    board: str | None
    cpu: str | None
    arch: str
    cores: Cores
    virtual: bool
    system: str | None
    kernel: str
    memory_mib: int | None
    governor: str | None
    driver: str | None
    mhz_range: tuple[float, ...] | None
    boost: bool | None
    power_mode: str | None
    gpu_driver: str | None
    l4t: str | None
    versions: Mapping[str, str]
    before: State

    @property
    def machine(self) -> str:
        """What kind of machine it is."""
        return self.board or self.cpu or self.arch


def conditions(root: Path = Path("/")) -> Conditions:
    """Everything that stays constant during a run, and the state at its start."""
    return Conditions(
        host=platform.node(),
        board=_text(root / "proc/device-tree/model"),
        cpu=cpu_model(root),
        arch=platform.machine(),
        cores=cores(root),
        virtual=_virtual(root),
        system=_system(root),
        kernel=platform.release(),
        memory_mib=_memory(root),
        governor=_same(_each(root, "cpufreq/scaling_governor")),
        driver=_same(_each(root, "cpufreq/scaling_driver")),
        mhz_range=_range(root),
        boost=_boost(root),
        power_mode=power_mode(root),
        gpu_driver=_gpu_driver(root),
        l4t=_first_line(root / "etc/nv_tegra_release"),
        versions=versions(),
        before=state(root),
    )


def state(root: Path = Path("/")) -> State:
    """What changes: clocks, temperatures, load."""
    return State(megahertz(root), celsius(root), throttle_count(root), load(root))


def cpu_model(root: Path = Path("/")) -> str | None:
    """The processor's name as the kernel knows it."""
    text = _text(root / "proc/cpuinfo") or ""
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def cores(root: Path = Path("/")) -> Cores:
    """Cores of the machine, those that this process may use, and its container's limit."""
    return Cores(os.cpu_count(), usable_threads(root), cpu_quota(root))


def megahertz(root: Path = Path("/")) -> float | None:
    """The mean clock of all cores, from cpufreq or /proc/cpuinfo."""
    kilohertz = [int(text) for text in _each(root, "cpufreq/scaling_cur_freq") if text.isdigit()]
    if kilohertz:
        return sum(kilohertz) / len(kilohertz) / 1000
    text = _text(root / "proc/cpuinfo") or ""
    clocks = [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)]
    return sum(clocks) / len(clocks) if clocks else None


def celsius(root: Path = Path("/")) -> dict[str, float]:
    """Temperatures by sensor: thermal zones, and the CPU's and GPU's own sensors."""
    temperatures: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _integer(zone / "temp")
        if value is not None and value > 0:  # zones of parts that are off give errors or -256
            temperatures[_unused(temperatures, _text(zone / "type") or zone.name)] = value / 1000
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        chip = _text(folder / "name") or folder.name
        if chip not in ("coretemp", "k10temp", "zenpower", "cpu_thermal"):
            continue
        for file in sorted(folder.glob("temp*_input")):
            value = _integer(file)
            label = _text(file.with_name(file.name.replace("_input", "_label"))) or file.name
            if value is not None:
                temperatures[_unused(temperatures, f"{chip} {label}")] = value / 1000
    return temperatures


def throttle_count(root: Path = Path("/")) -> int | None:
    """How often cores were slowed down for heat, or a Raspberry Pi's throttle flags as a number."""
    counts = [int(text) for text in _each(root, "thermal_throttle/core_throttle_count")]
    if counts:
        return sum(counts)
    flags = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    return int(flags, 16) if flags else None


def load(root: Path = Path("/")) -> float | None:
    """Runnable processes, averaged over a minute."""
    words = (_text(root / "proc/loadavg") or "").split()
    return float(words[0]) if words else None


def power_mode(root: Path = Path("/")) -> str | None:
    """A Jetson's power mode, as ``nvpmodel -q`` names it."""
    if not (root / "etc/nv_tegra_release").exists() and not (root / "etc/nvpmodel.conf").exists():
        return None
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, check=False, timeout=10
        )
        match = re.search(r"Power Mode:\s*(\S+)", done.stdout)
        if match:
            return match[1]
    except (OSError, subprocess.TimeoutExpired):
        pass
    status = _text(root / "var/lib/nvpmodel/status")  # "pmode:0002 fmode:quiet"
    match = re.search(r"pmode:0*(\d+)", status or "")
    return f"mode {match[1]}" if match else None


def versions() -> dict[str, str]:
    """Versions of Python and the packages involved."""
    releases = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            releases[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return releases


def _system(root: Path) -> str | None:
    text = _text(root / "etc/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else None


def _virtual(root: Path) -> bool:
    text = _text(root / "proc/cpuinfo") or ""
    return re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None


def _memory(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) // 1024 if match else None


def _range(root: Path) -> tuple[float, float] | None:
    low = [int(text) for text in _each(root, "cpufreq/scaling_min_freq") if text.isdigit()]
    high = [int(text) for text in _each(root, "cpufreq/scaling_max_freq") if text.isdigit()]
    return (min(low) / 1000, max(high) / 1000) if low and high else None


def _boost(root: Path) -> bool | None:
    """Whether the processor may clock higher than its nominal clock."""
    disabled = _integer(root / _CPUS / "intel_pstate/no_turbo")
    if disabled is not None:
        return disabled == 0
    enabled = _integer(root / _CPUS / "cpufreq/boost")
    return None if enabled is None else enabled == 1


def _gpu_driver(root: Path) -> str | None:
    line = _first_line(root / "proc/driver/nvidia/version")
    match = re.search(r"(\d+\.\d+(?:\.\d+)?)", line or "")
    return match[1] if match else None


def _each(root: Path, name: str) -> list[str]:
    """The file ``name`` of every core that has it."""
    files = sorted((root / _CPUS).glob(f"cpu[0-9]*/{name}"))
    return [text for file in files if (text := _text(file)) is not None]


def _same(values: list[str]) -> str | None:
    """The value that all cores share, or all distinct values."""
    return ", ".join(sorted(set(values))) or None


def _unused(taken: dict[str, float], name: str) -> str:
    number = sum(key == name or key.startswith(f"{name} #") for key in taken)
    return f"{name} #{number + 1}" if number else name


def _integer(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def _first_line(file: Path) -> str | None:
    text = _text(file)
    return text.splitlines()[0] if text else None


def _text(file: Path) -> str | None:
    """A file's text; None where it is missing or its driver fails."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None
