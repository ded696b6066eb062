"""An OpenVINO IR of any origin on this machine's CPU."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.files import file_sha256
from edgekit.foreign.tensors import Tensor

_TYPES: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "u8": np.dtype(np.uint8),
    "i8": np.dtype(np.int8),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
}


@dataclass(frozen=True)
class OpenVinoFile:
    """A compiled model; each thread has a request of its own."""

    input: Tensor
    outputs: tuple[Tensor, ...]
    executed: str
    key: str
    parallel: int
    compiled: Any
    own: threading.local

    def run(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        """One inference."""
        if not hasattr(self.own, "request"):
            self.own.request = self.compiled.create_infer_request()
        try:
            self.own.request.infer({0: images})
        except RuntimeError as error:
            raise EdgekitError(f"OpenVINO: {one_line(error)}") from error
        place = [tensor.name for tensor in self.outputs].index(output)
        return np.array(self.own.request.get_output_tensor(place).data)


def open_openvino_file(path: Path, extension: Path | None) -> OpenVinoFile:
    """Load an .xml with its .bin; ``extension`` is a library with its custom operators."""
    from edgekit.core.packages import require
    from edgekit.runtime.openvino_core import shared_core

    require(("openvino",), f"{path}")
    import openvino as ov

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UsageError(f"{path} lacks its weights: put {weights.name} beside it")
    if extension is not None and not extension.is_file():
        raise UsageError(f"no library with operators at {extension}")
    try:
        core = shared_core(() if extension is None else (extension,))
        model = core.read_model(path)
        # In f32, as the file has it: bf16, where a CPU has it, is another model.
        compiled = core.compile_model(
            model,
            "CPU",
            {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"},
        )
    except RuntimeError as error:
        raise UsageError(f"OpenVINO cannot load {path}: {one_line(error)}") from error
    if len(compiled.inputs) != 1:
        listed = ", ".join(_tensor(port, "input").describe() for port in compiled.inputs)
        raise UsageError(f"{path} is no image classifier: its inputs are {listed}")
    devices = " and ".join(compiled.get_property("EXECUTION_DEVICES"))
    version = ov.__version__.split("-")[0]
    parts = [file_sha256(path), file_sha256(weights)]
    parts += [] if extension is None else [file_sha256(extension)]
    digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    return OpenVinoFile(
        _tensor(compiled.inputs[0], "input"),
        tuple(_tensor(port, f"output {place}") for place, port in enumerate(compiled.outputs)),
        f"OpenVINO {version} on {devices}, f32",
        f"{digest} openvino {version} {devices} f32",
        int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")),
        compiled,
        threading.local(),
    )


def _tensor(port: Any, nameless: str) -> Tensor:
    # OpenVINO gives a port all names of a value that is handed on, and tells them in no order.
    name = min(port.get_names(), default=nameless)
    shape = tuple(
        dimension.get_length() if dimension.is_static else None
        for dimension in port.get_partial_shape()
    )
    kind = port.get_element_type().get_type_name()
    return Tensor(name, shape, _TYPES.get(kind, np.dtype(object)))
