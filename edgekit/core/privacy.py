"""Keeps the packages that edgekit depends on from reporting usage to their makers.

OpenVINO sends an event on every import, and NNCF on every calibration, both unasked and through the
package `openvino_telemetry`. They have no switch, but work without the package if it is not
installed. Users who opted in (``opt_in_out --opt_in``), or who set one of the variables that the
other packages read, keep their choice.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_INTEL: Final = "openvino_telemetry"
_SWITCHES: Final = {
    # Official builds send events from their library, and store an identifier in HOME.
    "ORT_DISABLE_TELEMETRY": "1",
    # timm's weights: every download describes the machine to the hub.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Every cluster reports its size and the libraries in use.
    "RAY_USAGE_STATS_ENABLED": "0",
}


def turn_off_telemetry() -> None:
    """For this process and its children; must run before the reporting packages are imported."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    if _INTEL not in sys.modules and not _agreed():
        sys.modules[_INTEL] = None  # type: ignore[assignment] # how Python spells "not installed"


def _agreed() -> bool:
    """Whether the user has opted in to Intel's reports."""
    consent = os.path.join(os.path.expanduser("~"), "intel", _INTEL)  # noqa: PTH111, PTH118 # a missing HOME is no error
    try:
        with open(consent, encoding="ascii") as file:  # noqa: PTH123 # pathlib costs 5 ms here
            return file.read(2).strip() == "1"
    except (OSError, ValueError):
        return False
