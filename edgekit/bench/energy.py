"""Energy where the device reports it: RAPL counters (Intel, AMD) or a Jetson's INA3221 sensors.

Both are read from sysfs. RAPL counts the energy of whole processor packages, an INA3221 measures
the power of the board's rails: neither knows which program used it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgekit.core.errors import EdgekitError

_POWERCAP: Final = "sys/class/powercap"


class NoEnergy(EdgekitError):
    """Energy cannot be measured on this device; the message says why."""


class Meter(Protocol):
    """Counts energy while it is sampled, once a second or so."""

    source: str
    """What is counted, in words."""

    @property
    def joules(self) -> float:
        """Energy up to the latest sample."""

    def sample(self) -> None:
        """Read the device."""


def open_meter(rails: Sequence[str] = (), root: Path = Path("/")) -> Meter:
    """The device's meter; raises `NoEnergy` where there is none.

    ``rails`` names the INA3221 sensors whose sum is the module's power, as in the target's
    descriptor: adding all of a board's sensors would count some of its power twice.
    """
    rapl, why_not = _rapl(root)
    if rapl is not None:
        return rapl
    sensors = {rail.name: rail for rail in _rails(root)}
    if not sensors:
        raise NoEnergy(why_not)
    available = ", ".join(sorted(sensors))
    if not rails:
        raise NoEnergy(
            f"the target does not say which power sensors to add ({available} exist): name them "
            "as power_rails in a descriptor of your own, and build for that"
        )
    missing = [name for name in rails if name not in sensors]
    if missing:
        raise NoEnergy(
            f"the target's power sensor {missing[0]} is not there or cannot be read: the "
            f"sensors are {available}"
        )
    return InaMeter([sensors[name] for name in rails])


@dataclass(frozen=True)
class _Domain:
    """A RAPL counter in microjoules; it wraps around at ``limit``."""

    name: str
    file: Path
    limit: int


class RaplMeter:
    """Adds up RAPL counters, which wrap around after some minutes."""

    def __init__(self, domains: list[_Domain]) -> None:
        self.source = f"RAPL: {', '.join(domain.name for domain in domains)}"
        self._domains = domains
        self._last = [_number(domain.file) for domain in domains]
        self._total = 0

    @property
    def joules(self) -> float:
        """Energy since the meter was opened."""
        return self._total / 1e6

    def sample(self) -> None:
        """Add the energy used since the last sample."""
        for index, domain in enumerate(self._domains):
            now = _number(domain.file)
            used = now - self._last[index]
            self._total += used if used >= 0 else used + domain.limit
            self._last[index] = now


@dataclass(frozen=True)
class _Rail:
    """A power rail: voltage in millivolts and current in milliamperes."""

    name: str
    voltage: Path
    current: Path

    def watts(self) -> float:
        return _number(self.voltage) * _number(self.current) / 1e6


class InaMeter:
    """Integrates the power of a Jetson's rails between samples."""

    def __init__(self, rails: list[_Rail], clock: Callable[[], float] = time.monotonic) -> None:
        self.source = f"INA3221: {', '.join(rail.name for rail in rails)}"
        self._rails = rails
        self._clock = clock
        self._total = 0.0
        self._last = (clock(), self._watts())

    @property
    def joules(self) -> float:
        """Energy since the meter was opened."""
        return self._total

    def sample(self) -> None:
        """Add the mean of the last two power readings times the time between them."""
        now, watts = self._clock(), self._watts()
        before, watts_before = self._last
        self._total += (now - before) * (watts + watts_before) / 2
        self._last = (now, watts)

    def _watts(self) -> float:
        return sum(rail.watts() for rail in self._rails)


def _rapl(root: Path) -> tuple[RaplMeter | None, str]:
    """A meter of the packages and their memory, or why there is none."""
    folder = root / _POWERCAP
    domains = []
    for counter in sorted(folder.glob("*-rapl:*/energy_uj")):
        name = _text(counter.with_name("name"))
        if name is None or not name.startswith(("package", "dram")):
            continue  # parts of a package, or the whole platform: they would count twice
        try:
            _number(counter)
            limit = _number(counter.with_name("max_energy_range_uj"))
        except PermissionError:
            why = f"{counter} is readable by root only: run 'sudo chmod a+r {counter}'"
            return None, why
        except (OSError, ValueError):
            continue
        domains.append(_Domain(f"{counter.parent.name} {name}", counter, limit))
    if domains:
        return RaplMeter(domains), ""
    return None, (
        f"no RAPL counters in {folder} (a virtual machine or a container hides them) and no "
        "INA3221 sensors"
    )


def _rails(root: Path) -> list[_Rail]:
    """All rails whose sensor can be read."""
    rails = []
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if not (_text(folder / "name") or "").startswith("ina3221"):
            continue
        for label in sorted(folder.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            name = _text(label) or ""
            rail = _Rail(name, folder / f"in{number}_input", folder / f"curr{number}_input")
            try:
                rail.watts()
            except (OSError, ValueError):  # a channel that is not connected
                continue
            rails.append(rail)
    return rails


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
