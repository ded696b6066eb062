"""ONNX Runtime's compiler: the calibrated ONNX file with uint8 images as its input.

The graph is otherwise unchanged, with the codebook lookup as a function of standard operators, so
the bundle needs only ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
import onnxruntime

from edgekit.bundle.manifest import RuntimeNeed
from edgekit.compilers.base import CompiledFiles, LookupForm
from edgekit.core.errors import UsageError
from edgekit.core.files import write_bytes
from edgekit.data.transforms import Preprocessing
from edgekit.graph.uint8_input import INPUT, add_uint8_input
from edgekit.graph.variants import to_variant
from edgekit.targets.descriptor import Descriptor

# The newest formats that ONNX Runtime 1.20, the oldest release we support, reads.
_OLDEST: Final = "1.20.0"
_OLDEST_IR, _OLDEST_OPSET = 10, 21


def compile_model(
    onnx_path: Path,
    preprocessing: Preprocessing,
    descriptor: Descriptor,
    out_dir: Path,
    lookup: LookupForm = "auto",
) -> CompiledFiles:
    """Write ``model.onnx`` to ``out_dir``; it takes any number of images."""
    if lookup == "plugin":
        raise UsageError(f"target {descriptor.name} runs without plugins: use lookup 'inline'")
    model = onnx.load(onnx_path)
    if lookup == "inline":
        model = to_variant(model, "inline")
    add_uint8_input(model.graph, preprocessing)
    write_bytes(out_dir / "model.onnx", model.SerializeToString(deterministic=True))
    return CompiledFiles(
        main="model.onnx",
        files=(out_dir / "model.onnx",),
        plugins=(),
        arch="any",
        runtime=RuntimeNeed("onnxruntime", _oldest_runtime(model), "same-or-newer"),
        input_name=INPUT,
    )


def _oldest_runtime(model: onnx.ModelProto) -> str:
    """The oldest release known to read the file; newer ones read older files."""
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if model.ir_version <= _OLDEST_IR and opset <= _OLDEST_OPSET:
        return _OLDEST
    version: str = onnxruntime.__version__
    return version
