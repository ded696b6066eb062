"""An ONNX file of any origin in ONNX Runtime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.files import file_sha256
from edgekit.core.host import usable_threads
from edgekit.foreign.tensors import Shape, Tensor

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
    executed: str
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


def open_onnx_file(path: Path) -> OnnxFile:
    """Load ``path``, with the weights that it keeps in other files: they are the user's own."""
    from edgekit.runtime.onnxruntime import FAILURES, open_session, runtime_version

    try:
        session = open_session(str(path), threads=1)
    except (*FAILURES, OSError) as error:
        raise UsageError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from error
    inputs = [_tensor(value) for value in session.get_inputs()]
    if len(inputs) != 1:
        listed = ", ".join(value.describe() for value in inputs)
        raise UsageError(f"{path} is no image classifier: its inputs are {listed}")
    (provider, *others) = session.get_providers()
    assert not others, "the session was opened for the CPU alone"
    version = runtime_version()
    return OnnxFile(
        inputs[0],
        tuple(_tensor(value) for value in session.get_outputs()),
        f"ONNX Runtime {version}, {provider}",
        f"{_hash(path)} onnxruntime {version} {provider}",
        usable_threads(),
        session,
    )


def metadata(path: Path) -> dict[str, str]:
    """What a file says of itself, by key; nothing if it is no ONNX file."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError):
        return {}
    return {entry.key: entry.value for entry in model.metadata_props}


def _tensor(value: Any) -> Tensor:
    # Sequences and maps, as scikit-learn's converters write them, are no scores that can be read.
    dtype = _TYPES.get(value.type, np.dtype(object))
    sides = value.shape if isinstance(value.shape, list) else []
    shape: Shape = tuple(side if isinstance(side, int) and side > 0 else None for side in sides)
    return Tensor(str(value.name), shape, dtype)


def _hash(path: Path) -> str:
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
