"""What a comparison can be asked for, and what a build asks for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.config import BuildConfig
from edgekit.parity.judge import Gates
from edgekit.parity.metrics import Baseline


@dataclass(frozen=True)
class ParityOptions:
    """What a comparison was asked for."""

    reference: str | None = None  # None: the float original, from the cache
    data: str | None = None  # None: what the bundle was built with
    labels: str | None = None
    gates: Gates = dataclasses.field(default_factory=Gates)
    corruptions: str | None = None  # None: the 15 of the benchmark
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    extra: bool = False
    baseline: Baseline | None = None  # None: AlexNet's for 1000 classes
    full: bool = False
    images: int = 0  # at most; 0 is all
    seed: int = 0  # of the order and of the corruptions
    skip_bad: bool = False
    allow_different_reference: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are read back from JSON."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


def options_of_build(config: BuildConfig) -> ParityOptions:
    """How a build compares."""
    return ParityOptions(
        gates=Gates(tolerance=config.tolerance), images=config.parity_images, seed=config.seed
    )


def made_by_build(section: Mapping[str, Any] | None, config: BuildConfig) -> bool:
    """Whether a bundle's parity section is what a build with ``config`` would write."""
    return section is not None and section.get("asked") == options_of_build(config).to_dict()
