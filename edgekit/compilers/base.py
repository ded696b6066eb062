"""Compilers, one per backend: each turns a calibrated ONNX file into the files of a bundle.

They are listed here by name; nothing is discovered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from edgekit.bundle.manifest import RuntimeNeed
from edgekit.core.packages import install_command
from edgekit.data.transforms import Preprocessing
from edgekit.runtime.runner import import_backend
from edgekit.targets.descriptor import Descriptor

LookupForm = Literal["auto", "plugin", "inline"]

# A backend's name in descriptors and manifests -> its module.
_COMPILE: Final = {
    "openvino": "edgekit.compilers.openvino",
    "onnxruntime": "edgekit.compilers.onnxruntime",
    "tensorrt": "edgekit.compilers.tensorrt",
}


@dataclass(frozen=True)
class CompiledFiles:
    """What a compiler wrote."""

    main: str
    """The file that the runtime opens."""
    files: tuple[Path, ...]
    """All files, in one folder, plugins included."""
    plugins: tuple[str, ...]
    arch: str
    """The plugins' architecture; "any" without plugins."""
    runtime: RuntimeNeed
    input_name: str
    without_plugin: str = ""
    """Why a plugin that would make the bundle faster is not in it."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """Additional sections of the manifest: a TensorRT engine may be pending."""


class Compiler(Protocol):
    """A backend's compiler."""

    def __call__(
        self,
        onnx_path: Path,
        preprocessing: Preprocessing,
        descriptor: Descriptor,
        out_dir: Path,
        lookup: LookupForm = "auto",
    ) -> CompiledFiles:
        """Turn the (calibrated) ONNX file into the files of a bundle that takes uint8 images."""


class _CompileModule(Protocol):
    """The interface of every module in `_COMPILE`."""

    compile_model: Compiler


def compiler(backend: str) -> Compiler:
    """The compiler of ``backend``."""
    module = import_backend(_COMPILE, backend, "build a bundle", install_command("build"))
    return cast(_CompileModule, module).compile_model
