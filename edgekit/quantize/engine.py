"""Runs the graphs that calibration compares, in OpenVINO on this machine's CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.emulation import in_float
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.openvino_core import shared_core
from edgekit.targets.descriptor import host_saturates

BATCH = 16  # images an inference


@dataclass(frozen=True, eq=False)
class CompiledGraph:
    """A graph that OpenVINO has compiled, and what the graph calls its outputs.

    OpenVINO gives a value that is handed on all of its names, and tells them in no order.
    """

    model: Any
    outputs: tuple[str, ...]


def compile_graph(graph: onnx.ModelProto, hint: str = "THROUGHPUT") -> CompiledGraph:
    """An ONNX graph for OpenVINO on this machine's CPU, in f32 where it is not in 8 bits.

    A CPU that adds 8-bit products in 16 bits computes in f32 throughout, on the values that the
    8 bits hold: it would answer for itself, and the graph may be made for another.
    """
    from edgekit.graph.layers import float_fed

    wrong = float_fed(graph)
    if wrong:
        raise EdgekitError(
            f"convolution {wrong[0].name} has 8-bit weights and float input, which OpenVINO may "
            "compute wrongly: quantize its input as well, or keep its weights in float"
        )
    outputs = tuple(output.name for output in graph.graph.output)
    if host_saturates():
        graph = in_float(graph)
    core = shared_core()
    model = _read(core, graph)
    # Without the hint OpenVINO computes in bf16 where it can, and codes flip.
    compiled = core.compile_model(
        model, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    )
    return CompiledGraph(compiled, outputs)


def _read(core: Any, graph: onnx.ModelProto) -> Any:
    """What of the graph leads to its outputs, in standard operators.

    A codebook and its tables may be most of the graph: OpenVINO maps them from files, which spares
    their copies in a smaller graph, in its bytes and in OpenVINO's model.
    """
    from edgekit.graph.variants import to_variant
    from edgekit.graph.view import drop_unused
    from edgekit.quantize.tables import tables_aside

    with tables_aside(graph) as (light, folder):
        light = to_variant(light, "inline")
        drop_unused(light)
        path = folder / "graph.onnx"
        path.write_bytes(light.SerializeToString())
        return core.read_model(path)


def run_compiled(
    compiled: CompiledGraph, batches: list[dict[str, NDArray[Any]]]
) -> list[dict[str, NDArray[Any]]]:
    """The named outputs for each batch of inputs, as many inferences side by side as pay."""
    model, names = compiled.model, compiled.outputs
    count = min(len(batches), model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    # Neither OpenVINO's own queue, which may wait for ever for Python's lock when it is taken down,
    # nor threads of Python: hundreds are started in a calibration, and with a glibc before 2.41
    # one in some thousands never hears that it has started.
    requests = [model.create_infer_request() for _ in range(count)]
    found: list[dict[str, NDArray[Any]]] = []

    def finish_next() -> None:
        request = requests[len(found) % count]
        request.wait()
        tensors = (request.get_output_tensor(place) for place in range(len(names)))
        found.append(dict(zip(names, [tensor.data.copy() for tensor in tensors], strict=True)))

    for number, batch in enumerate(batches):
        if number >= count:
            finish_next()
        requests[number % count].start_async(batch)
    while len(found) < len(batches):
        finish_next()
    return found


def outputs(
    graph: onnx.ModelProto, pixels: NDArray[np.uint8], preprocessing: Preprocessing
) -> Iterator[dict[str, NDArray[Any]]]:
    """A float or INT8 interchange graph's outputs for uint8 images [M, height, width, 3], in parts.

    In their order, some images at a time.
    """
    name = graph.graph.input[0].name
    compiled = compile_graph(graph)
    for start in range(0, len(pixels), 32 * BATCH):  # normalized images are 4 x as large
        block = pixels[start : start + 32 * BATCH]
        batches: list[dict[str, NDArray[Any]]] = [
            {name: preprocessing.normalize(block[at : at + BATCH])}
            for at in range(0, len(block), BATCH)
        ]
        yield from run_compiled(compiled, batches)


def answers(
    graph: onnx.ModelProto, pixels: NDArray[np.uint8], preprocessing: Preprocessing
) -> Answers:
    """What a float or INT8 interchange graph says about uint8 images [M, height, width, 3]."""
    return join([Answers.of(found) for found in outputs(graph, pixels, preprocessing)])
