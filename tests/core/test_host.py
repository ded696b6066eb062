"""How much of the machine is ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.core import host
from tests import bundles, cores

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "max 100000"}, None),
        ({f"{V2}/cpu.max": "150000 100000"}, 1.5),
        # The innermost group has no limit, one around it has, another one a smaller.
        (
            {
                "proc/self/cgroup": "0::/a/b/c",
                f"{V2}/a/b/c/cpu.max": "max 100000",
                f"{V2}/a/b/cpu.max": "300000 100000",
                f"{V2}/a/cpu.max": "200000 100000",
            },
            2.0,
        ),
        # A container without a namespace of its own: the path is the host's, the mount its own.
        ({"proc/self/cgroup": "0::/docker/123", f"{V2}/cpu.max": "50000 100000"}, 0.5),
        ({"proc/self/cgroup": "0::/../../other", f"{V2}/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "9:cpuset:/x\n4:cpu,cpuacct:/pod/one\n0::/",
                f"{V1}/pod/one/cpu.cfs_quota_us": "-1",
                f"{V1}/pod/one/cpu.cfs_period_us": "100000",
                f"{V1}/pod/cpu.cfs_quota_us": "250000",
                f"{V1}/pod/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        ({f"{V2}/cpu.max": "1 0", "proc/self/cgroup": "nonsense"}, None),
    ],
)
def test_the_quota_is_that_of_the_tightest_group(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert host.cpu_quota(machine(tmp_path, files)) == quota


def test_a_quota_is_rounded_down_but_one_thread_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_allowed", lambda: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for quota, threads in (("390000", 3), ("30000", 1), ("9900000", 8)):
        machine(tmp_path, {f"{V2}/cpu.max": f"{quota} 100000"})
        assert host.usable_threads(tmp_path) == threads
        assert host.runtime_threads(0, tmp_path) == threads
        assert host.runtime_threads(2, tmp_path) == 2


def test_a_part_of_the_machine_gets_a_thread_for_each_physical_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_allowed", lambda: {0, 1, 2, 3})
    for cpu in range(4):
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        machine(
            tmp_path, {f"{topology}/core_id": str(cpu // 2), f"{topology}/physical_package_id": "0"}
        )
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert host.usable_threads(tmp_path) == 4
    assert host.runtime_threads(0, tmp_path) == 2
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert host.runtime_threads(0, tmp_path) == 0  # all is ours: the runtime knows best


CONFINED = """
import os, sys, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
import edgekit
from edgekit.bench.baseline import float_onnxruntime
from edgekit.core.host import runtime_threads, usable_threads
from edgekit.data.loading import default_workers
from edgekit.bench.conditions import cores
from pathlib import Path

def threads():
    return len(os.listdir("/proc/self/task"))

assert usable_threads() == 1 and cores().usable == 1 and default_workers() == 0
before = threads()
run = float_onnxruntime(Path(sys.argv[1]), np.zeros((1, 3, 24, 32), np.float32))
run()
print(threads() - before, *(edgekit.load(path).describe()["threads"] for path in sys.argv[2:]))
"""


@pytest.mark.skipif(len(cores.EVERY) < 2, reason="one CPU is all there is")
@pytest.mark.every_core
def test_a_baseline_on_one_cpu_has_one_thread() -> None:
    """Left to itself ONNX Runtime starts one for each core of the machine, which all share one."""
    paths = [bundles.made().onnx, bundles.bundle("cpu"), bundles.bundle("onnxruntime-cpu")]
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, *map(str, paths)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "1"], done.stdout + done.stderr
