"""edgekit: robust image classifiers from checkpoint to INT8 on the edge.

``edgekit.load(path)`` opens a bundle for prediction (`edgekit.runtime.model.load`);
``edgekit.Monitor(bundle)`` watches what it predicts (`edgekit.field.monitor.Monitor`);
``edgekit.extension_path()`` is the compiled operator for plain OpenVINO.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.version_info < (3, 10):  # noqa: UP036 - old pips install it all the same
    sys.exit(
        "error: edgekit needs Python 3.10 or newer, and this is "
        + ".".join(map(str, sys.version_info[:3]))
        + ": make a virtual environment with a newer one"
    )

from edgekit.core.privacy import turn_off_telemetry

if TYPE_CHECKING:
    from edgekit.field.monitor import Monitor
    from edgekit.native.openvino_extension import extension_path
    from edgekit.runtime.model import load

__version__ = "0.1.0"
__all__ = ["Monitor", "__version__", "extension_path", "load"]

turn_off_telemetry()  # here, because every process of ours comes by before it imports a runtime


def __getattr__(name: str) -> object:
    """Import what a program uses only when it uses it: ``import edgekit`` stays instant."""
    if name == "load":
        from edgekit.runtime.model import load

        return load
    if name == "Monitor":
        from edgekit.field.monitor import Monitor

        return Monitor
    if name == "extension_path":
        from edgekit.native.openvino_extension import extension_path

        return extension_path
    raise AttributeError(f"module 'edgekit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), "Monitor", "extension_path", "load"])
