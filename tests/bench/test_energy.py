from pathlib import Path

import pytest

from edgekit.bench import energy
from edgekit.bench.energy import InaMeter, NoEnergy, open_meter
from edgekit.bench.monitor import Watch
from edgekit.targets.descriptor import descriptor_names, load_descriptor


def write(root: Path, files: dict[str, object]) -> Path:
    """A made-up sysfs."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
    return root


def rapl(root: Path, package: int) -> Path:
    power = "sys/class/powercap"
    return write(
        root,
        {
            f"{power}/intel-rapl:0/name": "package-0",
            f"{power}/intel-rapl:0/energy_uj": package,
            f"{power}/intel-rapl:0/max_energy_range_uj": 10_000_000,
            f"{power}/intel-rapl:0:0/name": "core",  # a part of the package
            f"{power}/intel-rapl:0:0/energy_uj": 5,
            f"{power}/intel-rapl:0:0/max_energy_range_uj": 10_000_000,
        },
    )


def test_rapl_counts_packages_over_their_limit(tmp_path: Path) -> None:
    meter = open_meter(root=rapl(tmp_path, 9_000_000))
    rapl(tmp_path, 9_500_000)
    meter.sample()
    assert meter.joules == 0.5
    rapl(tmp_path, 1_500_000)  # began again at ten joules
    meter.sample()
    assert meter.joules == 2.5
    assert "package-0" in meter.source
    assert "core" not in meter.source


def test_unreadable_counters_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> int:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(energy, "_number", refuse)  # root may read any file
    with pytest.raises(NoEnergy, match="readable by root only: run 'sudo chmod"):
        open_meter(root=rapl(tmp_path, 1))


def sensors(root: Path, milliamperes: dict[str, int]) -> Path:
    """INA3221 chips of three channels each, at 5 V."""
    files: dict[str, object] = {}
    for place, (label, current) in enumerate(milliamperes.items()):
        folder, number = f"sys/class/hwmon/hwmon{3 + place // 3}", 1 + place % 3
        files |= {
            f"{folder}/name": "ina3221",
            f"{folder}/in{number}_label": label,
            f"{folder}/in{number}_input": 5000,
            f"{folder}/curr{number}_input": current,
        }
    return write(root, files)


def test_jetson_rails_are_integrated(tmp_path: Path) -> None:
    sensors(tmp_path, {"VDD_IN": 1000, "VDD_SOC": 300})  # the second is fed by the first
    meter = open_meter(["VDD_IN"], tmp_path)
    assert isinstance(meter, InaMeter)
    assert meter.source == "INA3221: VDD_IN"
    seconds = [10.0]
    meter = InaMeter(meter._rails, lambda: seconds[0])
    sensors(tmp_path, {"VDD_IN": 3000, "VDD_SOC": 300})
    seconds[0] = 12.0
    meter.sample()
    assert meter.joules == 2 * (5 + 15) / 2


# Labels as NVIDIA's developer guide names the boards' sensors, and what the module takes in all.
BOARDS = {
    "jetson-orin-nano": ({"VDD_IN": 1000, "VDD_CPU_GPU_CV": 500, "VDD_SOC": 300}, 5.0),
    "jetson-orin-nx": ({"VDD_IN": 1000, "VDD_CPU_GPU_CV": 500, "VDD_SOC": 300}, 5.0),
    "jetson-agx-orin": (
        {"VDD_GPU_SOC": 1000, "VDD_CPU_CV": 400, "VIN_SYS_5V0": 600, "VDDQ_VDD2_1V8AO": 100},
        10.0,
    ),
    "jetson-thor": (
        {"VIN": 1000, "VDD_GPU": 400, "VDD_CPU_SOC_MSS": 300, "VIN_SYS_5V0": 200},
        5.0,
    ),
    "jetson-xavier": (
        dict.fromkeys(("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), 200),
        6.0,
    ),
}


@pytest.mark.parametrize("name", [name for name in descriptor_names() if "jetson" in name])
def test_the_descriptor_says_which_rails_add_up(name: str, tmp_path: Path) -> None:
    milliamperes, watts = BOARDS[name]
    rails = load_descriptor(name).power_rails
    meter = open_meter(rails, sensors(tmp_path, milliamperes))
    assert isinstance(meter, InaMeter)
    assert meter._watts() == pytest.approx(watts)
    assert meter.source == f"INA3221: {', '.join(rails)}"
    watch = Watch(tmp_path, rails=rails)
    assert watch.energy(1, 1).source == meter.source


def test_sensors_that_nobody_named_are_not_guessed_at(tmp_path: Path) -> None:
    sensors(tmp_path, {"VDD_IN": 1000, "VDD_SOC": 300})
    with pytest.raises(NoEnergy, match=r"which power sensors to add \(VDD_IN, VDD_SOC exist"):
        open_meter((), tmp_path)
    with pytest.raises(NoEnergy, match="power sensor VIN is not there or"):
        open_meter(["VIN"], tmp_path)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoEnergy, match="no RAPL counters"):
        open_meter(["VDD_IN"], tmp_path)
