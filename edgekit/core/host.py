"""This machine: its architecture, its CPU's features, and how much of it we may use."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path


def cpu_flags() -> frozenset[str]:
    """The CPU's feature names as Linux spells them; empty if unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


_most: list[int] = []


def limit_threads(count: int) -> None:
    """Let this process count on ``count`` threads: others like it have the rest of the machine."""
    _most[:] = [count]


def usable_threads(root: Path = Path("/")) -> int:
    """How many threads of this process can actually run at a time; at least one.

    Affinity (taskset, cpusets) and the quota of every control group around the process count. A
    quota is rounded down: one thread more than it covers makes all of them wait.
    """
    allowed = min([len(_allowed()), *_most])
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def runtime_threads(requested: int, root: Path = Path("/")) -> int:
    """Threads for a runtime: ``requested``, or 0 (its own choice) if we have the whole machine.

    On part of a machine, runtimes left to themselves start a thread for each of its cores.
    """
    usable = usable_threads(root)
    if requested or usable == os.cpu_count():
        return requested
    return min(usable, _physical_cores(root))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that this process's control groups may use; None means no limit.

    The groups are nested, and any of them may have a limit. In a container the path that the
    kernel reports may begin outside the mounted tree, so every part of it that exists is read.
    """
    limits = []
    for folder in _groups(root):
        words = _words(folder / "cpu.max")
        if len(words) != 2:  # version 1
            words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):  # not max, -1
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that limit this process's CPU time."""
    mounts = root / "sys/fs/cgroup"
    homes = [(mounts, ""), (mounts / "cpu", "")]
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            homes += [(mounts, path), (mounts / "unified", path)]
        elif "cpu" in controllers.split(","):
            homes += [(mounts / controllers, path), (mounts / "cpu", path)]
    for home, path in homes:
        parts = [part for part in path.split("/") if part not in ("", "..")]
        yield from (home.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _physical_cores(root: Path) -> int:
    """The cores that the allowed CPUs belong to: a second thread on one adds little."""
    cores = set()
    for cpu in _allowed():
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        cores.add(tuple(_words(topology / "physical_package_id") + _words(topology / "core_id")))
    return len(_allowed()) if () in cores else len(cores)


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def host_arch() -> str:
    """This machine's architecture under the name that descriptors use."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
