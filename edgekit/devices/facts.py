"""A device's own description, validated and typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgekit.devices.answers import Answer
from edgekit.devices.remote import facts as facts_source
from edgekit.devices.session import Session

_ARCHES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class DeviceFacts:
    """What `edgekit.devices.remote.facts.gather` found; "" or 0 means unknown."""

    machine: str
    hostname: str
    system: str
    kernel: str
    l4t: str
    """NVIDIA's Linux release on a Jetson, such as "36.4.3"."""
    jetpack: str
    model: str
    machine_id: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    memory_mib: int
    memory_free_mib: int
    free_bytes: int
    python: str
    python_path: str
    venv: bool
    governor: str
    power_mode: str
    gpu: str
    tensorrt: str
    tensorrt_python: bool
    trtexec: str
    nvcc: str
    cmake: str
    compiler: str
    runtimes: Mapping[str, str]
    """The environments that edgekit made there, each with what pip had to install."""
    packages: Mapping[str, str]
    bundles: tuple[str, ...]

    @staticmethod
    def from_dict(value: object, source: str) -> DeviceFacts:
        """Checks every value; ``source`` is what messages call the answer."""
        answer = Answer(value, source)
        facts = answer.fill(DeviceFacts)
        if not re.match(r"[0-9]+\.[0-9]", facts.python):
            raise answer.item("python").wrong("a version")
        if facts.l4t and not facts.l4t[0].isdigit():
            raise answer.item("l4t").wrong("a version")
        return facts

    @property
    def arch(self) -> str:
        """The architecture under the name that descriptors use."""
        machine = self.machine.lower()
        return _ARCHES.get(machine, machine)


def gather_facts(session: Session, root: str) -> DeviceFacts:
    """Ask a device; ``root`` is edgekit's folder there."""
    answer = session.call(facts_source, "gather", root)
    return DeviceFacts.from_dict(answer.value, answer.name)
