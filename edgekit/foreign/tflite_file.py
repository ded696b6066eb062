"""A .tflite file in LiteRT, TensorFlow Lite's successor."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError, one_line
from edgekit.core.files import file_sha256
from edgekit.core.host import usable_threads
from edgekit.core.packages import install_command
from edgekit.foreign.execution import Execution
from edgekit.foreign.tensors import Tensor


@dataclass(frozen=True)
class TfliteFile:
    """One interpreter with all threads: it answers one batch at a time."""

    input: Tensor
    outputs: tuple[Tensor, ...]
    execution: Execution
    key: str
    parallel: int
    interpreter: Any
    lock: threading.Lock

    def run(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        """One inference."""
        interpreter = self.interpreter
        with self.lock:
            (place,) = (entry["index"] for entry in interpreter.get_input_details())
            details = {entry["name"]: entry["index"] for entry in interpreter.get_output_details()}
            try:
                if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
                    interpreter.resize_tensor_input(place, images.shape)
                    interpreter.allocate_tensors()
                interpreter.set_tensor(place, images)
                interpreter.invoke()
            except (RuntimeError, ValueError) as error:
                raise EdgekitError(f"LiteRT: {one_line(error)}") from error
            return np.array(interpreter.get_tensor(details[output]))


def open_tflite_file(path: Path) -> TfliteFile:
    """Load ``path``; quantized inputs and outputs state their own scale."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ToolchainMissing(
            f"{path} needs LiteRT, which is not installed: run {install_command('litert')}"
        ) from error
    threads = usable_threads()
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"LiteRT cannot load {path}: {one_line(error)}") from error
    inputs = [_tensor(entry) for entry in interpreter.get_input_details()]
    if len(inputs) != 1:
        listed = ", ".join(value.describe() for value in inputs)
        raise UsageError(f"{path} is no image classifier: its inputs are {listed}")
    version = metadata.version("ai-edge-litert")
    return TfliteFile(
        inputs[0],
        tuple(_tensor(entry) for entry in interpreter.get_output_details()),
        Execution(f"LiteRT {version}", ("CPU",), _delegate(interpreter)),
        f"{file_sha256(path)} litert {version}",
        1,
        interpreter,
        threading.Lock(),
    )


def _delegate(interpreter: Any) -> str:
    """Whether LiteRT handed parts of the graph to its default delegate for CPUs, XNNPACK.

    How many operators a part replaced, its Python interface does not tell.
    """
    operators = interpreter._get_ops_details()
    parts = sum(operator["op_name"] == "DELEGATE" for operator in operators)
    if not parts:
        return "its own kernels, no delegate"
    return f"{parts} part{'s' if parts > 1 else ''} of the graph by its delegate XNNPACK"


def _tensor(entry: dict[str, Any]) -> Tensor:
    signature = entry.get("shape_signature", entry["shape"])
    shape = tuple(int(side) if side > 0 else None for side in signature)
    scale, zero_point = entry["quantization"]
    if not scale:
        return Tensor(entry["name"], shape, np.dtype(entry["dtype"]))
    return Tensor(entry["name"], shape, np.dtype(entry["dtype"]), float(scale), int(zero_point))
