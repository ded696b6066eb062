"""Makes the self-test of a bundle: asks its graph, and the bundle, about the model's scenes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import onnx

from edgekit.bundle.selftest import SelfTest
from edgekit.core.errors import EdgekitError
from edgekit.data.transforms import Preprocessing
from edgekit.quantize.engine import answers
from edgekit.quantize.guard import onnxruntime_answers
from edgekit.runtime.model import load
from edgekit.runtime.selftest import ask, judge, measured_noise, stored_part, where_it_runs
from edgekit.steps.selftest_scenes import Scenes

# How far apart two runtimes of one INT8 graph came where both had integer kernels: 0.14 to 0.25.
# Those of a device that is not here may be as far, however well the two of this machine agree.
_INT8_NOISE: Final = 0.15


def make_self_test(
    graph: onnx.ModelProto, preprocessing: Preprocessing, scenes: Scenes, backend: str
) -> SelfTest:
    """The self-test of ``graph``, which is what the runtime of ``backend`` is given.

    Its reference is what the graph says, computed node by node as ONNX defines them: the same on
    any machine. How far a runtime may be from it is measured with one that is not the bundle's.
    """
    pixels = scenes.pixels(preprocessing)
    reference = onnxruntime_answers(graph, pixels, preprocessing, optimized=False)
    stored = stored_part(reference, scenes.columns, scenes.positions)
    if backend == "openvino":
        other = onnxruntime_answers(graph, pixels, preprocessing)
    else:
        other = answers(graph, pixels, preprocessing)
    measured = measured_noise(stored, stored_part(other, scenes.columns, scenes.positions))
    noise, margin_noise = _expected_noise(measured) if _quantized(graph) else measured
    return SelfTest(
        images=scenes.images,
        cell=scenes.cell,
        classes=reference.logits.shape[1],
        columns=scenes.columns,
        positions=scenes.positions,
        reference=stored,
        own=None,
        where="",
        noise=noise,
        margin_noise=margin_noise,
        brighter=scenes.brighter,
        swapped=scenes.swapped,
    )


def with_own_answers(path: Path, test: SelfTest) -> SelfTest:
    """``test`` with what the bundle at ``path`` says here, if that is what its graph says."""
    model = load(path)
    raw, where = ask(test, model.run, model.size), where_it_runs(model.describe())
    report = judge(dataclasses.replace(test, own=None), raw, where)
    if not report.passed:
        raise EdgekitError(f"{path} does not compute what its graph says: {report.describe()}")
    own = stored_part(raw, test.columns, test.positions)
    noise, margin_noise = max((test.noise, test.margin_noise), measured_noise(test.reference, own))
    return dataclasses.replace(test, own=own, where=where, noise=noise, margin_noise=margin_noise)


def _quantized(graph: onnx.ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def _expected_noise(measured: tuple[float, float]) -> tuple[float, float]:
    """Of logits and margins, which grow with each other."""
    logits, margins = measured
    factor = max(1.0, _INT8_NOISE / max(logits, 1e-6))
    return logits * factor, margins * factor
