"""What really computed a classifier's answers, and whether that is what was asked for.

Runtimes move to the CPU without a word: OpenVINO's AUTO where it finds nothing else, ONNX Runtime
for every node that a provider does not take. A comparison of devices would then compare the CPU
with itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.typed_toml import closest

Runtime = Literal["openvino", "onnxruntime"]
_SLIP: Final = 0.75  # how like a runtime's name a word must be to be meant as one


@dataclass(frozen=True)
class Place:
    """Where the user wants a file to run: ``openvino:GPU`` after an @."""

    runtime: Runtime
    device: str

    def __str__(self) -> str:
        return f"{self.runtime}:{self.device}"


def split_place(name: str) -> tuple[str, Place | None]:
    """``model.onnx@openvino:GPU`` as a file and a place; a name without a place is whole."""
    file, at, where = name.rpartition("@")
    runtime, colon, device = where.partition(":")
    if not (at and file and colon):
        return name, None
    if runtime not in get_args(Runtime):
        close = closest(runtime, get_args(Runtime), _SLIP)
        if close is not None and not Path(name).exists():
            raise UsageError(f"{name}: no runtime '{runtime}' (did you mean '{close}'?)")
        return name, None
    if not device:
        raise UsageError(f"{name}: name a device after '{runtime}:', such as openvino:GPU")
    found: Runtime = "openvino" if runtime == "openvino" else "onnxruntime"
    return file, Place(found, device)


@dataclass(frozen=True)
class Execution:
    """The runtime, and the devices or providers that it really used."""

    runtime: str
    """With its version."""
    devices: tuple[str, ...]
    """As the runtime names them: CPU, GPU.0, CUDAExecutionProvider."""
    detail: str = ""
    nodes: Mapping[str, int] | None = None
    """Nodes of the graph by provider; None where the runtime does not tell."""
    asked: str | None = None
    """The place that the user named, or None."""
    fell_back: bool = False
    """What was asked for computes nothing."""

    def describe(self) -> str:
        """In words, for one line."""
        used = [
            name if self.nodes is None else f"{name} ({_counted(self.nodes.get(name, 0))})"
            for name in self.devices
        ]
        text = f"{self.runtime} on {' and '.join(used)}" if used else self.runtime
        text += f", {self.detail}" if self.detail else ""
        return f"{text} (asked for {self.asked})" if self.asked else text

    def check(self, name: str, *, allow_fallback: bool) -> None:
        """Refuse a fallback that nobody allowed; ``name`` is the classifier's."""
        if self.fell_back and not allow_fallback:
            raise EdgekitError(
                f"{name} was asked to run on {self.asked}, but all of it runs on "
                f"{' and '.join(self.devices)}: --allow-fallback accepts that"
            )


def _counted(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"
