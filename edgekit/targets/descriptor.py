"""Descriptors of target devices, read from ``targets/devices/*.toml`` or a user's own file.

A descriptor names the runtime that executes the model (its backend), the processor, what the
quantized graph may contain (its dialect), and how to configure the runtime. The descriptor
``cpu`` means this machine: its architecture and instruction set are detected when it is read.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from edgekit.core.errors import UsageError
from edgekit.core.host import cpu_flags, host_arch
from edgekit.core.resources import resource
from edgekit.core.typed_toml import from_dict, nearest, read_toml
from edgekit.targets.intel_devices import why_no_device
from edgekit.targets.tensorrt_releases import TensorRTFacts

Backend = Literal["openvino", "onnxruntime", "tensorrt"]
Arch = Literal["host", "any", "x86_64", "aarch64"]
Isa = Literal["avx2", "vnni", "dotprod"]
DialectName = Literal["auto", "openvino", "openvino-novnni", "onnxruntime", "tensorrt"]
Precision = Literal["int8", "fp32"]
Hint = Literal["latency", "throughput"]
InferencePrecision = Literal["f32", "bf16", "f16"]
OpenVinoDevice = Literal["CPU", "GPU", "NPU", "AUTO"]

_FOLDER: Final = "targets/devices"
# It appears in commands to paste and in the script that builds an engine.
_NAME: Final = re.compile(r"\w[\w .+-]{0,99}")
# Keys of earlier descriptors, which nothing read; bundles from then still have them.
_FORMER: Final = frozenset({"memory_mib", "power"})
_FORMER_TENSORRT: Final = frozenset({"int8_tops", "dla", "rails"})
# Linux's names of CPU features, any of which makes the instruction set available.
_FLAGS: Final[dict[Isa, frozenset[str]]] = {
    "avx2": frozenset({"avx2"}),
    "vnni": frozenset({"avx512_vnni", "avx_vnni"}),
    "dotprod": frozenset({"asimddp"}),
}
_DIALECTS: Final[dict[Backend, tuple[DialectName, ...]]] = {
    "openvino": ("auto", "openvino", "openvino-novnni"),
    "onnxruntime": ("onnxruntime",),
    "tensorrt": ("tensorrt",),
}


@dataclass(frozen=True)
class Descriptor:
    """A device, and how a model is built for it and run on it."""

    name: str
    title: str
    """One line for people."""
    backend: Backend
    dialect: DialectName
    """What a quantized graph may contain; "auto" is resolved from the instruction set."""
    arch: Arch = "any"
    """"host" is resolved to this machine's."""
    isa: tuple[Isa, ...] = ()
    """Instruction sets that the int8 graph relies on; with arch "host", what this machine has."""
    precision: Precision = "int8"
    openvino_device: OpenVinoDevice = "CPU"
    """Where OpenVINO computes; AUTO takes the best device that it finds."""
    inference_precision: InferencePrecision = "f32"
    """The type that float operations compute in; a runtime that picks one itself changes codes."""
    batch: int = 1
    """Images per inference; 0 compiles for any number."""
    hint: Hint = "latency"
    threads: int = 0
    """CPU threads; 0 leaves it to the runtime."""
    streams: int = 0
    """Inferences at a time; 0 leaves it to the runtime and the hint."""
    power_rails: tuple[str, ...] = ()
    """Power sensors (INA3221) whose sum is the module's power, without the rails that one of them
    feeds. Empty if unknown."""
    note: str = ""
    tensorrt: TensorRTFacts | None = None
    """Versions, GPU and tools of a TensorRT device."""

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work."""
        if not _NAME.fullmatch(self.name) or len(self.title) > 200 or not self.title.isprintable():
            raise UsageError(
                f"name {self.name!r} must be letters, digits and ' .+-_', the title one line"
            )
        if self.dialect not in _DIALECTS[self.backend]:
            known = ", ".join(_DIALECTS[self.backend])
            raise UsageError(
                f"backend '{self.backend}' cannot run dialect '{self.dialect}' (known: {known})"
            )
        if (self.backend == "tensorrt") != (self.tensorrt is not None):
            raise UsageError("backend 'tensorrt' and the table [tensorrt] belong together")
        if self.openvino_device != "CPU" and self.backend != "openvino":
            raise UsageError(f"openvino_device is for backend 'openvino', not '{self.backend}'")
        if self.openvino_device == "NPU" and (self.batch == 0 or self.inference_precision != "f16"):
            raise UsageError(
                "OpenVINO's NPU takes a fixed batch and computes in f16: set batch and "
                "inference_precision"
            )
        for name in ("batch", "threads", "streams"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.backend == "onnxruntime" and self.inference_precision != "f32":
            raise UsageError(
                f"ONNX Runtime on a CPU computes in f32, not {self.inference_precision}"
            )


def descriptor_from_manifest(table: Mapping[str, Any], source: str) -> Descriptor:
    """The target that a bundle was built for, without the former keys of older bundles."""
    target = {name: value for name, value in table.items() if name not in _FORMER}
    facts = target.get("tensorrt")
    if isinstance(facts, Mapping):
        target["tensorrt"] = {
            name: value for name, value in facts.items() if name not in _FORMER_TENSORRT
        }
    return from_dict(Descriptor, target, source)


def load_descriptor(target: str) -> Descriptor:
    """The descriptor of a known name, or of a file if ``target`` ends in ``.toml``."""
    if target.endswith(".toml"):
        path = Path(target)
    else:
        names = descriptor_names()
        if target not in names:
            raise UsageError(
                f"unknown target '{target}'{nearest(target, names)}: 'edgekit targets' lists "
                "them; the name of your own file must end in .toml"
            )
        path = resource(_FOLDER) / f"{target}.toml"
    descriptor = read_toml(path, Descriptor)
    if descriptor.name != path.stem:
        raise UsageError(f"{path}: name is '{descriptor.name}', it must be '{path.stem}'")
    return _resolve(descriptor)


def descriptor_names() -> list[str]:
    """The targets that come with edgekit, in alphabetical order."""
    return sorted(path.stem for path in resource(_FOLDER).glob("*.toml"))


def host_isa(flags: frozenset[str] | None = None) -> tuple[Isa, ...]:
    """The instruction sets for int8 that a CPU with these ``flags`` has (default: this one)."""
    flags = cpu_flags() if flags is None else flags
    return tuple(isa for isa, names in _FLAGS.items() if flags & names)


def host_saturates() -> bool:
    """Whether this CPU adds pairs of 8-bit products in 16 bits, where they can overflow."""
    return host_arch() == "x86_64" and "vnni" not in host_isa()


def missing_isa(descriptor: Descriptor, flags: frozenset[str] | None = None) -> str | None:
    """The instruction sets that a CPU lacks for the descriptor's int8 graphs, or None.

    This machine's CPU, unless ``flags`` are given as Linux spells them. Without VNNI, int8 sums
    overflow in a graph made for VNNI: it runs, but its answers are wrong.
    """
    missing = [isa for isa in descriptor.isa if isa not in host_isa(flags)]
    return " and ".join(missing) if missing and descriptor.precision == "int8" else None


def why_not_here(descriptor: Descriptor) -> str | None:
    """Why this machine cannot run bundles for the descriptor, or None."""
    if descriptor.arch not in ("any", "host", host_arch()):
        return f"needs {descriptor.arch}, this machine is {host_arch()}"
    if descriptor.backend == "tensorrt" and importlib.util.find_spec("tensorrt") is None:
        return "needs TensorRT's Python package, which is not installed"
    if descriptor.openvino_device in ("GPU", "NPU"):
        return why_no_device(descriptor.openvino_device)
    missing = missing_isa(descriptor)
    return f"needs a CPU with {missing}, this one has none" if missing else None


def _resolve(descriptor: Descriptor) -> Descriptor:
    """Replace "host" and "auto" with what they mean on this machine."""
    arch, isa, dialect = descriptor.arch, descriptor.isa, descriptor.dialect
    if arch == "host":
        machine = host_arch()
        arch = "x86_64" if machine == "x86_64" else "aarch64" if machine == "aarch64" else "any"
        isa = host_isa()
    if dialect == "auto":
        # Without int8 dot products, x86 adds pairs of products in 16 bits, which overflow unless
        # the weights use only half their range.
        exact = "vnni" in isa or arch == "aarch64"
        dialect = "openvino" if exact else "openvino-novnni"
    return dataclasses.replace(descriptor, arch=arch, isa=isa, dialect=dialect)
