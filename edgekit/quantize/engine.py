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
from edgekit.quantize.emulation import has_8_bit_weights, in_float
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.openvino_core import shared_core
from edgekit.targets.descriptor import host_saturates

BATCH = 16  # images per inference


@dataclass(frozen=True, eq=False)
class CompiledGraph:
    """A graph compiled by OpenVINO, with the names that the graph gives its outputs.

    OpenVINO collects all names under which a value is passed on, in no particular order.
    """

    model: Any
    outputs: tuple[str, ...]


def compile_graph(graph: onnx.ModelProto, hint: str = "THROUGHPUT") -> CompiledGraph:
    """Compile an ONNX graph for this machine's CPU; what is not in 8 bits runs in f32.

    A CPU that adds 8-bit products in 16 bits runs everything in f32, on the values that the 8 bits
    represent: its saturated sums would say nothing about the device the graph is meant for.
    """
    from edgekit.graph.layers import float_fed

    wrong = float_fed(graph)
    if wrong:
        raise EdgekitError(
            f"convolution {wrong[0].name} has 8-bit weights and float input, which OpenVINO may "
            "compute wrongly: quantize its input as well, or keep its weights in float"
        )
    outputs = tuple(output.name for output in graph.graph.output)
    if host_saturates() and has_8_bit_weights(graph):
        graph = in_float(graph)
    core = shared_core()
    model = _read(core, graph)
    del graph  # if nobody else wants it: OpenVINO has its own copy
    # Without the hint OpenVINO computes in bf16 where it can, and codes flip.
    compiled = core.compile_model(
        model, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
    )
    return CompiledGraph(compiled, outputs)


def _read(core: Any, graph: onnx.ModelProto) -> Any:
    """The part of the graph that its outputs need, in standard operators.

    A codebook and its tables may be most of a graph. OpenVINO maps them from files, which saves
    the copies in a smaller graph, in its bytes and in OpenVINO's model.
    """
    from edgekit.graph.variants import to_variant
    from edgekit.graph.view import drop_unused
    from edgekit.quantize.tables import tables_in_files

    with tables_in_files(graph) as (light, folder):
        light = to_variant(light, "inline")
        drop_unused(light)
        path = folder / "graph.onnx"
        path.write_bytes(light.SerializeToString())
        try:
            return core.read_model(path)
        finally:
            path.unlink()


def run_compiled(
    compiled: CompiledGraph, batches: list[dict[str, NDArray[Any]]]
) -> list[dict[str, NDArray[Any]]]:
    """The outputs by name for each batch, with as many parallel inferences as OpenVINO advises."""
    model, names = compiled.model, compiled.outputs
    count = min(len(batches), model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    # Not OpenVINO's AsyncInferQueue: its destructor may deadlock with the GIL. Not Python threads
    # either: a calibration starts hundreds, and with glibc before 2.41 one start in a few thousand
    # hangs because a wake-up is lost.
    requests = [model.create_infer_request() for _ in range(count)]
    results: list[dict[str, NDArray[Any]]] = []

    def finish_next() -> None:
        request = requests[len(results) % count]
        request.wait()
        tensors = (request.get_output_tensor(place) for place in range(len(names)))
        results.append(dict(zip(names, [tensor.data.copy() for tensor in tensors], strict=True)))

    for number, batch in enumerate(batches):
        if number >= count:
            finish_next()
        requests[number % count].start_async(batch)
    while len(results) < len(batches):
        finish_next()
    return results


def outputs(
    graph: onnx.ModelProto, pixels: NDArray[np.uint8], preprocessing: Preprocessing
) -> Iterator[dict[str, NDArray[Any]]]:
    """A float or INT8 interchange graph's outputs for uint8 images [M, height, width, 3].

    Batch by batch, in order.
    """
    name = graph.graph.input[0].name
    compiled = compile_graph(graph)
    for start in range(0, len(pixels), 32 * BATCH):  # normalized images are 4 times as large
        block = pixels[start : start + 32 * BATCH]
        batches: list[dict[str, NDArray[Any]]] = [
            {name: preprocessing.normalize(block[at : at + BATCH])}
            for at in range(0, len(block), BATCH)
        ]
        yield from run_compiled(compiled, batches)


def answers(
    graph: onnx.ModelProto, pixels: NDArray[np.uint8], preprocessing: Preprocessing
) -> Answers:
    """A float or INT8 interchange graph's answers for uint8 images [M, height, width, 3]."""
    return join([Answers.of(part) for part in outputs(graph, pixels, preprocessing)])
