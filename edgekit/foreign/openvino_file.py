"""An OpenVINO IR or an ONNX file of any origin in OpenVINO, on the CPU or another device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, UsageError, one_line
from edgekit.core.files import file_sha256, read_regular
from edgekit.core.host import runtime_threads
from edgekit.foreign.execution import Execution, Place
from edgekit.foreign.onnx_file import onnx_sha256
from edgekit.foreign.tensors import Tensor

if TYPE_CHECKING:
    from edgekit.runtime.openvino_requests import InferRequests

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
    """A compiled model and its requests."""

    input: Tensor
    outputs: tuple[Tensor, ...]
    execution: Execution
    key: str
    parallel: int
    requests: InferRequests

    def run(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        """One inference."""
        place = [tensor.name for tensor in self.outputs].index(output)

        def read(request: Any) -> NDArray[Any]:
            return np.array(request.get_output_tensor(place).data)

        return self.requests.infer(images, read)


def open_openvino_file(
    path: Path, extension: Path | None, place: Place | None = None, *, allow_fallback: bool = False
) -> OpenVinoFile:
    """Load an .xml with its .bin, or an .onnx, on the device of ``place`` or the CPU.

    ``extension`` is a library with its custom operators.
    """
    from edgekit.core.packages import require

    require(("openvino",), f"{path}")
    import openvino as ov

    from edgekit.runtime.openvino_core import shared_core
    from edgekit.runtime.openvino_devices import (
        check_device,
        device_settings,
        execution_devices,
        fell_back,
        without_missing,
    )
    from edgekit.runtime.openvino_requests import InferRequests, reason

    onnx = path.suffix == ".onnx"
    parts = [path] if onnx else [path, path.with_suffix(".bin")]
    if not parts[-1].is_file():
        raise UsageError(f"{path} lacks its weights: put {parts[-1].name} beside it")
    if extension is not None and not extension.is_file():
        raise UsageError(f"no library with operators at {extension}")
    asked = "CPU" if place is None else place.device
    core = shared_core(() if extension is None else (extension,))
    check_device(core, asked, str(path), allow_fallback=allow_fallback)
    if not onnx:
        _check_xml(path)
    try:
        model = core.read_model(_standard(path) if onnx else path)
    except RuntimeError as error:
        raise UsageError(f"OpenVINO cannot load {path}: {one_line(error)}") from error
    try:
        used = without_missing(core, asked)
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", **device_settings(core, used)}
        if "NPU" not in used:  # which computes in f16
            # In f32, as the file has it: bf16, where a CPU has it, is another model.
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        if used == "CPU" and (threads := runtime_threads(0)):
            settings["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(model, used, settings)
    except RuntimeError as error:
        kind = UsageError if asked == "CPU" else EdgekitError
        raise kind(f"OpenVINO cannot load {path} on {asked}: {reason(error)[:200]}") from error
    if len(compiled.inputs) != 1:
        listed = ", ".join(_tensor(port, "input").describe() for port in compiled.inputs)
        raise UsageError(f"{path} is no image classifier: its inputs are {listed}")
    devices = execution_devices(compiled)
    version = ov.__version__.split("-")[0]
    precision = "its own precision" if "NPU" in used else "f32"
    execution = Execution(
        f"OpenVINO {version}",
        devices,
        precision,
        asked=None if place is None else str(place),
        fell_back=fell_back(asked, devices),
    )
    requests = InferRequests(compiled)
    hashes = [onnx_sha256(path)] if onnx else [file_sha256(part) for part in parts]
    hashes += [] if extension is None else [file_sha256(extension)]
    digest = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    return OpenVinoFile(
        _tensor(compiled.inputs[0], "input"),
        tuple(_tensor(port, f"output {place}") for place, port in enumerate(compiled.outputs)),
        execution,
        f"{digest} openvino {version} {' and '.join(devices)} {precision} {asked}",
        requests.parallel,
        requests,
    )


def _standard(path: Path) -> Any:
    """An ONNX file as OpenVINO reads it: of functions, such as edgekit's, it knows nothing."""
    import onnx

    from edgekit.graph.variants import lookup_node, to_variant

    model = onnx.load(path, load_external_data=False)
    if lookup_node(model) is None:
        return path
    return to_variant(onnx.load(path), "inline").SerializeToString()


def _check_xml(path: Path) -> None:
    """Refuse what is no IR: OpenVINO would ask its other readers, which print what they think."""
    parser = expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        parser.StartElementHandler = None
        if name != "net" or "version" not in attributes:
            raise UsageError(f"{path} is no OpenVINO IR: it does not begin with <net version=...>")

    def doctype(*_: object) -> None:  # entities could make it grow without end
        raise UsageError(f"{path} is no OpenVINO IR: it defines entities")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(read_regular(path), True)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except expat.ExpatError as error:
        raise UsageError(f"{path} is no OpenVINO IR: {error}") from error


def _tensor(port: Any, nameless: str) -> Tensor:
    # OpenVINO gives a port all names of a value that is handed on, and tells them in no order.
    name = min(port.get_names(), default=nameless)
    shape = tuple(
        dimension.get_length() if dimension.is_static else None
        for dimension in port.get_partial_shape()
    )
    kind = port.get_element_type().get_type_name()
    return Tensor(name, shape, _TYPES.get(kind, np.dtype(object)))
