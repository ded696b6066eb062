"""What a comparison can be asked for."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from edgekit.metrics.corruption_error import Baseline
from edgekit.parity.gates import Gates


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
