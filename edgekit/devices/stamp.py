"""Records what was installed into a runtime on a device, so the next deploy can skip it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from edgekit.devices.answers import Answer, InvalidAnswer, parse_json


@dataclass(frozen=True)
class Stamp:
    """Written beside an environment once it is complete."""

    edgekit: str
    """SHA-256 of edgekit's wheel."""
    requirement: str
    """What else pip had to install."""
    python: str
    """The device's Python."""
    wheels: tuple[str, ...]
    """SHA-256 of the wheels given with --wheels."""

    @staticmethod
    def parse(text: str) -> Stamp | None:
        """The inverse of `to_json`; None for any other text."""
        try:
            return Answer(parse_json(text), "stamp").fill(Stamp)
        except (ValueError, InvalidAnswer):
            return None

    def to_json(self) -> str:
        """Text that changes whenever the environment does."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def serves(self, need: Stamp) -> bool:
        """Whether an environment with this stamp will do; wheels count only if some are given."""
        return dataclasses.replace(self, wheels=()) == dataclasses.replace(need, wheels=()) and (
            not need.wheels or self.wheels == need.wheels
        )
