"""What ``edgekit bench`` is asked to measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest

Scenario = Literal["latency", "throughput", "cold-start", "memory", "sustained"]
SCENARIOS: Final[tuple[Scenario, ...]] = get_args(Scenario)
USUAL: Final[tuple[Scenario, ...]] = ("latency", "throughput", "cold-start", "memory")
_LONGEST: Final = {"second": 86_400, "minute": 10_080}  # a day, and a week of sustained load


def check_duration(name: str, value: float, unit: Literal["second", "minute"] = "second") -> None:
    """Refuse what is no time to measure for: what was meant for another option, or a slip."""
    longest = _LONGEST[unit]
    if not 0 < value <= longest:  # nor what is not a number
        raise UsageError(f"{name} must be above 0 and at most {longest:,}, not {value:g}")


@dataclass(frozen=True)
class BenchOptions:
    """Settings of one run; every bundle of the run gets the same."""

    scenarios: tuple[Scenario, ...] = USUAL
    seconds: float = 10.0
    """For latency and for throughput."""
    minutes: float = 5.0
    """For sustained load."""
    batch: int | None = None
    """Images per inference; None is what the bundle was built for."""
    threads: int | None = None
    """CPU threads; 0 is the runtime's choice, None the bundle's."""
    compare: bool = False
    """Let the bundles take turns, and compare them with the first."""
    baseline: str = "auto"
    """A float ONNX file, "none", "auto": the bundle's own original from the cache, or an earlier
    bundle, which then takes turns with this one as well."""
    layers: bool = False
    """Time every layer as well."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be measured."""
        for scenario in self.scenarios:
            if scenario not in SCENARIOS:
                raise UsageError(
                    f"unknown scenario '{scenario}'{nearest(scenario, list(SCENARIOS))}"
                )
        check_duration("seconds", self.seconds)
        check_duration("minutes", self.minutes, "minute")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"batch must be at least 1, not {self.batch}")
        if self.threads is not None and self.threads < 0:
            raise UsageError(f"threads must not be negative, not {self.threads}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "scenarios": list(self.scenarios)}
