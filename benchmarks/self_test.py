"""What a bundle's self-test sees: faults planted in the INT8 graph of the paper's ResNet-50.

Each is judged twice: against the bundle's own answers (the same runtime on the same kind of CPU)
and against the stored reference (any other device), by OpenVINO and by ONNX Runtime.

    python benchmarks/self_test.py
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from full_size import float_graph, half_corrupted
from numpy.typing import NDArray
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgekit.bundle.selftest import SelfTest
from edgekit.core.console import Console
from edgekit.data.transforms import IMAGENET, Preprocessing
from edgekit.graph.legalize import legalize
from edgekit.graph.variants import lookup_node
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.engine import answers as openvino_answers
from edgekit.quantize.guard import onnxruntime_answers
from edgekit.quantize.recipes import Recipe
from edgekit.runtime.answers import Answers
from edgekit.runtime.selftest import ask, check_answers, stored_part
from edgekit.steps.selftest import make_self_test
from edgekit.steps.selftest_scenes import make_scenes
from edgekit.targets.dialects import DIALECTS

Edit = Callable[[NDArray[Any]], NDArray[Any]]
Runner = Callable[[onnx.ModelProto, Preprocessing], Callable[[NDArray[np.uint8]], Answers]]
HERE = "here"


def with_openvino(
    graph: onnx.ModelProto, preprocessing: Preprocessing
) -> Callable[[NDArray[np.uint8]], Answers]:
    """Asks OpenVINO; on a CPU without VNNI it computes with the 8-bit values in float."""
    return lambda pixels: openvino_answers(graph, pixels, preprocessing)


def with_onnxruntime(
    graph: onnx.ModelProto, preprocessing: Preprocessing
) -> Callable[[NDArray[np.uint8]], Answers]:
    """Asks ONNX Runtime's integer kernels."""
    return lambda pixels: onnxruntime_answers(graph, pixels, preprocessing)


RUNNERS: dict[str, Runner] = {"OpenVINO": with_openvino, "ONNX Runtime": with_onnxruntime}


def edited(model: onnx.ModelProto, names: list[str], edit: Edit) -> onnx.ModelProto:
    """A copy of ``model`` with some of its stored tensors changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            array = np.ascontiguousarray(edit(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def exchanged(a: int, b: int, axis: int) -> Edit:
    """Rows ``a`` and ``b`` in each other's place."""

    def edit(array: NDArray[Any]) -> NDArray[Any]:
        order = np.arange(array.shape[axis])
        order[[a, b]] = b, a
        return np.take(array, order, axis=axis)

    return edit


def weight_scales(model: onnx.ModelProto) -> list[str]:
    """The scales of int8 weights, from the first layer to the last."""
    weights = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) >= 2
    }
    return [
        node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    ]


def faults(
    model: onnx.ModelProto, test: SelfTest
) -> Iterator[tuple[str, onnx.ModelProto, Preprocessing]]:
    """What may go wrong between a graph and the device that runs it."""
    node = lookup_node(model)
    assert node is not None
    assert test.reference.code is not None
    codes = np.argsort(-np.bincount(test.reference.code.ravel()), kind="stable")[:2].tolist()
    yield "nothing", model, IMAGENET
    rows = edited(model, [node.input[1]], exchanged(*codes, 0))
    yield "the two most used codewords exchanged", rows, IMAGENET
    met = np.unique(test.reference.best)[:2].tolist()
    swapped = model
    for axis, rank in ((0, 1), (0, 2), (1, 2)):
        names = [
            tensor.name
            for tensor in model.graph.initializer
            if len(tensor.dims) == rank and tensor.dims[axis] == test.classes
        ]
        names = [name for name in names if name != node.input[1]]
        swapped = edited(swapped, names, exchanged(*met, axis))
    yield "two classes exchanged", swapped, IMAGENET
    scales = weight_scales(model)
    for place in sorted({0, 1, len(scales) // 4, len(scales) // 2, len(scales) - 3, -2, -1}):
        larger = edited(model, [scales[place]], lambda scale: (scale * 1.2).astype(scale.dtype))
        number = place % len(scales)
        yield f"weights x 1.2: layer {number + 1} of {len(scales)}", larger, IMAGENET
    for step in (10, -10):
        mean = (IMAGENET.mean[0] + step, IMAGENET.mean[1] + step, IMAGENET.mean[2] + step)
        yield f"mean {step:+} gray levels", model, dataclasses.replace(IMAGENET, mean=mean)
    yield "red and blue exchanged", model, dataclasses.replace(IMAGENET, channel_order="BGR")


def main() -> int:
    """Print a table; exit 1 where the undamaged model fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24, help="for calibration")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = float_graph(Path(folder))
    images = half_corrupted(given.images, 21)
    recipe = Recipe(bias_correction="none", rounding="nearest")
    calibrated, _ = calibrate(
        model, images, images, IMAGENET, recipe, DIALECTS["onnxruntime"], Console(verbosity=-1)
    )
    graph = legalize(calibrated, DIALECTS["onnxruntime"])
    start, cpu = time.monotonic(), time.process_time()
    scenes = make_scenes(model, IMAGENET, None, 0)
    spent = time.process_time() - cpu
    test = make_self_test(graph, IMAGENET, scenes, "tensorrt")
    assert test.reference.code is not None
    print(
        f"made in {time.monotonic() - start:.0f} s, {time.process_time() - cpu:.0f} CPU-s, "
        f"{spent:.0f} of them once for all targets; "
        f"{len(test.to_bytes()) / 1e6:.2f} MB; noise {test.noise:.3f}; "
        f"{len(np.unique(test.reference.best))} classes, "
        f"{len(np.unique(test.reference.code))} codes",
        flush=True,
    )
    wrong = 0
    for runtime, runner in RUNNERS.items():
        good = ask(test, runner(graph, IMAGENET), IMAGENET.size)
        own = stored_part(good, test.columns, test.positions)
        tests = {
            "own": dataclasses.replace(test, own=own, where=HERE),
            "reference": dataclasses.replace(test, own=None),
        }
        for fault, damaged, preprocessing in faults(graph, test):
            raw = ask(test, runner(damaged, preprocessing), IMAGENET.size)
            for against, chosen in tests.items():
                report = check_answers(chosen, raw, HERE)
                verdict = "passes" if report.passed else f"fails: {'; '.join(report.problems)}"
                rms = f"{report.logits_rms:.3f} of {report.logits_allowed:.3f}"
                print(f"{runtime}, {against}, {fault}: {rms}, {verdict}", flush=True)
                wrong += fault == "nothing" and not report.passed
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
