"""Our OpenVINO operators on given inputs: ``python -m tests.arm.operators FOLDER EXTENSION OUT``.

FOLDER has graphs, and features for each in a file of its name. They are run in both ways that
OpenVINO has: ``Model.evaluate``, which calls an operator directly, and compiled for the CPU device.
Needs no more than numpy and OpenVINO, so that an emulated machine can run it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edgekit.runtime.openvino_core import shared_core


def results(folder: Path, extension: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Each output with the graph, the way and the output that it is from."""
    core = shared_core([extension])  # lives on: a port still refers to our code when it goes
    for graph in sorted(folder.glob("*.onnx")):
        features = np.load(graph.with_suffix(".npy"))
        model = core.read_model(graph)
        outputs = [ov.Tensor(port.get_element_type(), ov.Shape([0])) for port in model.outputs]
        assert model.evaluate(outputs, [ov.Tensor(features)])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers = compiled(features)
        for index, port in enumerate(model.outputs):
            name = port.get_any_name()
            yield f"{graph.stem}/evaluate/{name}", np.array(outputs[index].data)
            yield f"{graph.stem}/compiled/{name}", np.array(answers[index])


if __name__ == "__main__":
    found = dict(results(Path(sys.argv[1]), Path(sys.argv[2])))
    np.savez(sys.argv[3], **found)  # type: ignore[arg-type] # its stub
