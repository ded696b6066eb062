from pathlib import Path

import pytest

from edgekit.bench import energy
from edgekit.bench.energy import InaMeter, NoEnergy, open_meter


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
    meter = open_meter(rapl(tmp_path, 9_000_000))
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
        open_meter(rapl(tmp_path, 1))


def test_jetson_rails_are_integrated(tmp_path: Path) -> None:
    folder = "sys/class/hwmon/hwmon3"
    files = {
        f"{folder}/name": "ina3221",
        f"{folder}/in1_label": "VDD_IN",
        f"{folder}/in1_input": 5000,
        f"{folder}/curr1_input": 1000,
        f"{folder}/in2_label": "VDD_SOC",  # fed by VDD_IN: must not count twice
        f"{folder}/in2_input": 5000,
        f"{folder}/curr2_input": 300,
    }
    meter = open_meter(write(tmp_path, files))
    assert isinstance(meter, InaMeter)
    assert meter.source == "INA3221: VDD_IN"
    seconds = [10.0]
    meter = InaMeter(meter._rails, lambda: seconds[0])
    write(tmp_path, {f"{folder}/curr1_input": 3000})
    seconds[0] = 12.0
    meter.sample()
    assert meter.joules == 2 * (5 + 15) / 2


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoEnergy, match="no RAPL counters"):
        open_meter(tmp_path)
