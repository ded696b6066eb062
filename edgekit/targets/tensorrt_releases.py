"""The properties of a TensorRT device: the table ``[tensorrt]`` of a device descriptor.

An engine runs only on the kind of GPU and with the TensorRT release that built it, so it is built
on the device; these properties decide what the host prepares for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from edgekit.core.errors import UsageError

VqForm = Literal["function", "inline", "plugin"]

TRTEXEC: Final = "/usr/src/tensorrt/bin/trtexec"
# JetPack's major version -> the major version of its Linux (L4T), in /etc/nv_tegra_release.
L4T: Final = {5: 35, 6: 36, 7: 38}
_FIRST_WITH_PLUGINS: Final = (10, 0)  # IPluginV3
# Before that, the parser expands a node's function even if a plugin of its name is registered.
_FIRST_TO_PREFER_PLUGINS: Final = (10, 7)


@dataclass(frozen=True)
class TensorRTFacts:
    """The properties; versions are text, such as "10.3"."""

    sm: tuple[int, ...]
    """Compute capabilities that the plugin is compiled for, without the dot."""
    tensorrt: str
    """The oldest supported release."""
    before: str
    """The first release that is no longer supported."""
    cuda: str
    """JetPack's CUDA, for advice on packages."""
    jetpack: str = ""
    """Empty if there is none."""
    trtexec: str = TRTEXEC

    def __post_init__(self) -> None:
        """Refuse values that the build script could not use."""
        for name in ("tensorrt", "before", "cuda", "jetpack"):
            text = getattr(self, name)
            if not re.fullmatch(r"\d+\.\d+(\.\d+)*", text) and (name != "jetpack" or text):
                raise UsageError(f"{name} must be a version such as '10.3', not '{text}'")
        if version(self.tensorrt) >= version(self.before):
            raise UsageError(f"tensorrt {self.tensorrt} must be below before ({self.before})")
        if not self.sm or min(self.sm) < 50:
            raise UsageError("sm must list compute capabilities without the dot, such as [87]")
        if self.jetpack and version(self.jetpack)[0] not in L4T:
            raise UsageError(f"jetpack {self.jetpack} is unknown (known: 5, 6 and 7)")
        # Not a relative path: it would depend on the folder in which a script runs.
        if not re.fullmatch(r"trtexec|(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)+", self.trtexec):
            raise UsageError(f"trtexec must be 'trtexec' or a full path, not {self.trtexec!r}")

    @property
    def has_plugins(self) -> bool:
        """Whether every release in the range accepts our plugin."""
        return version(self.tensorrt) >= _FIRST_WITH_PLUGINS

    @property
    def has_functions(self) -> bool:
        """Whether every release in the range prefers a plugin to a node's function."""
        return version(self.tensorrt) >= _FIRST_TO_PREFER_PLUGINS

    @property
    def form(self) -> VqForm:
        """The form of the lookup that is fastest on every release in the range."""
        if self.has_functions:
            return "function"
        return "plugin" if self.has_plugins else "inline"

    def covers(self, release: str) -> bool:
        """Whether an installed release is in the range."""
        return version(self.tensorrt) <= version(release) < version(self.before)


def describe_l4t(release: str) -> str:
    """NVIDIA's Linux as Jetson users call it: ``"36.4.3"`` -> JetPack 6 (Linux R36.4.3)."""
    jetpack = next((name for name, major in L4T.items() if major == version(release)[0]), None)
    linux = f"Linux R{release}"
    return linux if jetpack is None else f"JetPack {jetpack} ({linux})"


def version(text: str) -> tuple[int, ...]:
    """``"10.3"`` -> (10, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))
