"""An ONNX file of any origin in ONNX Runtime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError, one_line
from edgekit.core.files import file_sha256
from edgekit.core.host import usable_threads
from edgekit.core.typed_toml import nearest
from edgekit.foreign.execution import Execution, Place
from edgekit.foreign.tensors import Shape, Tensor

_SUFFIX = "ExecutionProvider"
# The packages whose build of ONNX Runtime has a provider; they replace the package onnxruntime.
_PACKAGES = {
    "CUDA": "onnxruntime-gpu",
    "Tensorrt": "onnxruntime-gpu",
    "OpenVINO": "onnxruntime-openvino",
    "QNN": "onnxruntime-qnn",
    "Dml": "onnxruntime-directml",
}

_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
}


@dataclass(frozen=True)
class OnnxFile:
    """A session of one thread; several inferences run at a time."""

    input: Tensor
    outputs: tuple[Tensor, ...]
    execution: Execution
    key: str
    parallel: int
    session: Any

    def run(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        """One inference."""
        from edgekit.runtime.onnxruntime import FAILURES

        try:
            (values,) = self.session.run([output], {self.input.name: images})
        except FAILURES as error:
            raise EdgekitError(f"ONNX Runtime: {one_line(error)}") from error
        return np.asarray(values)


def open_onnx_file(path: Path, place: Place | None = None) -> OnnxFile:
    """Load ``path``, with the weights that it keeps in other files: they are the user's own.

    ``place`` names a provider; what it does not take runs on the CPU, and `Execution` says so.
    """
    from edgekit.runtime.onnxruntime import CPU, FAILURES, open_session, runtime_version

    provider = CPU if place is None else _provider(place.device)
    try:
        session = open_session(str(path), threads=1, provider=provider, place_nodes=True)
    except (*FAILURES, OSError) as error:
        raise UsageError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from error
    inputs = [_tensor(value) for value in session.get_inputs()]
    if len(inputs) != 1:
        listed = ", ".join(value.describe() for value in inputs)
        raise UsageError(f"{path} is no image classifier: its inputs are {listed}")
    version = runtime_version()
    nodes = _nodes(session, provider, version)
    used = tuple(name for name in session.get_providers() if nodes is None or name in nodes)
    execution = Execution(
        f"ONNX Runtime {version}",
        used,
        nodes=nodes,
        asked=None if place is None else str(place),
        fell_back=place is not None and provider not in used,
    )
    return OnnxFile(
        inputs[0],
        tuple(_tensor(value) for value in session.get_outputs()),
        execution,
        f"{onnx_sha256(path)} onnxruntime {version} {' '.join(used)}",
        usable_threads(),
        session,
    )


def _provider(name: str) -> str:
    """The full name of the execution provider called ``name``, if this build has it."""
    import onnxruntime

    known: dict[str, str] = {
        one.removesuffix(_SUFFIX): one for one in onnxruntime.get_all_providers()
    }
    short = name.removesuffix(_SUFFIX)
    if short not in known:
        raise UsageError(f"ONNX Runtime has no provider '{name}'{nearest(short, sorted(known))}")
    if known[short] not in onnxruntime.get_available_providers():
        package = _PACKAGES.get(short)
        advice = (
            "install a build of ONNX Runtime that has it"
            if package is None
            else f"run pip uninstall -y onnxruntime && pip install {package}"
        )
        raise ToolchainMissing(f"this build of ONNX Runtime has no {known[short]}: {advice}")
    return known[short]


def _nodes(session: Any, provider: str, version: str) -> dict[str, int] | None:
    """How many nodes each provider took; None where only the CPU could take any.

    A provider that loads may still take none.
    """
    from edgekit.runtime.onnxruntime import CPU

    if not hasattr(session, "get_provider_graph_assignment_info"):
        if provider == CPU:
            return None
        raise ToolchainMissing(
            f"ONNX Runtime {version} does not tell which nodes {provider} took: install a newer one"
        )
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def metadata(path: Path) -> dict[str, str]:
    """What a file says of itself, by key; nothing if it is no ONNX file."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError):
        return {}
    return {entry.key: entry.value for entry in model.metadata_props}


def takes_prepared_pixels(path: Path) -> bool:
    """Whether a file takes floats: what edgekit compiles for a runtime takes the pixels' bytes."""
    import onnx

    (images,) = onnx.load(path, load_external_data=False).graph.input
    return bool(images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _tensor(value: Any) -> Tensor:
    # Sequences and maps, as scikit-learn's converters write them, are no scores that can be read.
    dtype = _TYPES.get(value.type, np.dtype(object))
    sides = value.shape if isinstance(value.shape, list) else []
    shape: Shape = tuple(side if isinstance(side, int) and side > 0 else None for side in sides)
    return Tensor(str(value.name), shape, dtype)


def onnx_sha256(path: Path) -> str:
    """Of the file, and of those beside it that hold its weights."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    parts = [file_sha256(path), *(file_sha256(path.parent / name) for name in sorted(names))]
    return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()
