"""Keeps the packages that edgekit stands on from reporting its use to their makers.

OpenVINO sends an event whenever it is imported, and so does NNCF for each calibration, both by
the package `openvino_telemetry` and both unasked. They have no switch, but do without the package
where it is not installed. Whoever has said yes to it (``opt_in_out --opt_in``) is left alone, as is
who has set one of the variables that the others look at.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_INTEL: Final = "openvino_telemetry"
_SWITCHES: Final = {
    # Official builds send events from their library, and keep an identifier in HOME.
    "ORT_DISABLE_TELEMETRY": "1",
    # For weights of timm: the hub is told with each download what the machine is.
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def turn_off_telemetry() -> None:
    """For this process and those that it starts; must run before what would report is imported."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    if _INTEL not in sys.modules and not _agreed():
        sys.modules[_INTEL] = None  # type: ignore[assignment] # how Python spells "not installed"


def _agreed() -> bool:
    """Whether the user has told Intel's tools that they may report."""
    consent = os.path.join(os.path.expanduser("~"), "intel", _INTEL)  # noqa: PTH111, PTH118 # no HOME is no error here
    try:
        with open(consent, encoding="ascii") as file:  # noqa: PTH123 # pathlib costs 5 ms here
            return file.read(2).strip() == "1"
    except (OSError, ValueError):
        return False
