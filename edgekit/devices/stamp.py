"""What was installed into a runtime on a device, so that the next deploy has nothing to do."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from edgekit.devices.answers import Answer, Nonsense, parse_json


@dataclass(frozen=True)
class Stamp:
    """Written beside an environment when it is finished."""

    edgekit: str
    """SHA-256 of edgekit's wheel."""
    requirement: str
    """What else pip was to install."""
    python: str
    """The device's Python."""
    wheels: tuple[str, ...]
    """SHA-256 of the wheels that were given, if any were."""

    @staticmethod
    def parse(text: str) -> Stamp | None:
        """The inverse of `to_json`; None for any other text."""
        try:
            return Answer(parse_json(text), "stamp").fill(Stamp)
        except (ValueError, Nonsense):
            return None

    def to_json(self) -> str:
        """Text that changes whenever the environment does."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def serves(self, wanted: Stamp) -> bool:
        """Whether an environment with this stamp is what is wanted; wheels only if some are."""
        return dataclasses.replace(self, wheels=()) == dataclasses.replace(wanted, wheels=()) and (
            not wanted.wheels or self.wheels == wanted.wheels
        )
