from pathlib import Path

from edgekit.bench.conditions import State, celsius, conditions, megahertz, throttle_count
from edgekit.bench.monitor import Watch
from edgekit.core.host import cpu_quota
from tests.bench.test_energy import rapl, write


def machine(root: Path, *, kilohertz: int = 2_000_000, millidegrees: int = 40_000) -> Path:
    cpu = "sys/devices/system/cpu"
    return write(
        root,
        {
            "proc/cpuinfo": "processor : 0\nmodel name\t: Fast 9000\nflags : avx2 hypervisor",
            "proc/loadavg": "0.50 0.40 0.30 1/100 999",
            "sys/fs/cgroup/cpu.max": "150000 100000",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": kilohertz,
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": kilohertz,
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave",
            f"{cpu}/cpu1/cpufreq/scaling_governor": "performance",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": 3,
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone0/temp": millidegrees,
            "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
            "sys/class/thermal/thermal_zone1/temp": -256_000,  # a part that is off
        },
    )


def test_conditions_are_read_from_the_system(tmp_path: Path) -> None:
    found = conditions(machine(tmp_path))
    assert found.cpu == "Fast 9000"
    assert found.virtual
    assert found.governor == "performance, powersave"
    assert found.cores.limit == 1.5
    assert found.before == State(mhz=2000.0, celsius={"x86_pkg_temp": 40.0}, throttled=3, load=0.5)


def test_an_empty_system_is_no_error(tmp_path: Path) -> None:
    found = conditions(tmp_path)
    assert found.cpu is None
    assert found.governor is None
    assert found.power_mode is None
    assert megahertz(tmp_path) is None
    assert celsius(tmp_path) == {}


def test_other_ways_of_saying_it(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/cpu"
    write(tmp_path, {f"{folder}/cpu.cfs_quota_us": 50_000, f"{folder}/cpu.cfs_period_us": 100_000})
    assert cpu_quota(tmp_path) == 0.5
    write(tmp_path, {f"{folder}/cpu.cfs_quota_us": -1})
    assert cpu_quota(tmp_path) is None
    write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005"})
    assert throttle_count(tmp_path) == 0x50005


def test_a_run_whose_conditions_changed_says_so(tmp_path: Path) -> None:
    seconds = [0.0]
    rapl(tmp_path, 0)
    watch = Watch(machine(tmp_path), every=1, clock=lambda: seconds[0])
    for step in range(1, 7):
        seconds[0] = step
        machine(tmp_path, kilohertz=2_000_000 - 100_000 * step, millidegrees=40_000 + 2_000 * step)
        rapl(tmp_path, 1_000_000 * step)
        assert watch.look() is not None
        assert watch.look() is None
    write(tmp_path, {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 5})
    seconds[0] = 7
    watch.finish()
    text = "; ".join(watch.notes(latency_drift=1.2))
    assert "latency rose by 20%" in text
    assert "the clock fell from" in text
    assert "the temperature rose from" in text
    assert "throttled 2 time(s)" in text
    used = watch.energy(inferences=60, images=120)
    assert used.joules == 6
    assert used.millijoules_per_image == 50


def test_a_quiet_run_says_nothing(tmp_path: Path) -> None:
    seconds = [0.0]
    watch = Watch(machine(tmp_path), clock=lambda: seconds[0])
    for step in range(1, 5):
        seconds[0] = step
        watch.look()
    assert watch.notes(latency_drift=1.01) == []
    assert watch.energy(1, 1).available is False
