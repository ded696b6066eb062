"""Makes a bundle's self-test: the answers of its graph, and of the bundle, to the scenes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import onnx

from edgekit.bundle.selftest import SelfTest
from edgekit.core.errors import EdgekitError
from edgekit.data.transforms import Preprocessing
from edgekit.graph.view import Graph
from edgekit.quantize.engine import answers
from edgekit.quantize.guard import onnxruntime_answers
from edgekit.runtime.model import load
from edgekit.runtime.selftest import ask, check_answers, measured_noise, stored_part, where_it_runs
from edgekit.steps.selftest_scenes import Scenes

# Two runtimes of one INT8 graph differed by 0.14 to 0.25 where both had integer kernels. Those of a
# device that is not here may differ as much, however well the two on this machine agree.
_INT8_NOISE: Final = 0.15


def make_self_test(
    graph: onnx.ModelProto, preprocessing: Preprocessing, scenes: Scenes, backend: str
) -> SelfTest:
    """The self-test of ``graph``, which the runtime of ``backend`` will run.

    Its reference is the graph computed node by node as ONNX defines it, the same on any machine.
    How far a runtime may deviate is measured with one that is not the bundle's.
    """
    pixels = scenes.pixels(preprocessing)
    reference = onnxruntime_answers(graph, pixels, preprocessing, optimized=False)
    stored = stored_part(reference, scenes.columns, scenes.positions)
    if backend == "openvino":
        other = onnxruntime_answers(graph, pixels, preprocessing)
    else:
        other = answers(graph, pixels, preprocessing)
    measured = measured_noise(stored, stored_part(other, scenes.columns, scenes.positions))
    noise, margin_noise = (
        _expected_noise(measured) if Graph(graph).has_quantized_values else measured
    )
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
    """``test`` with the answers of the bundle at ``path``, if they match those of its graph."""
    model = load(path)
    raw, where = ask(test, model.run, model.size), where_it_runs(model.describe())
    report = check_answers(dataclasses.replace(test, own=None), raw, where)
    if not report.passed:
        raise EdgekitError(f"{path} does not compute what its graph defines: {report.describe()}")
    own = stored_part(raw, test.columns, test.positions)
    noise, margin_noise = max((test.noise, test.margin_noise), measured_noise(test.reference, own))
    return dataclasses.replace(test, own=own, where=where, noise=noise, margin_noise=margin_noise)


def _expected_noise(measured: tuple[float, float]) -> tuple[float, float]:
    """The noise of logits and margins, which grow together."""
    logits, margins = measured
    factor = max(1.0, _INT8_NOISE / max(logits, 1e-6))
    return logits * factor, margins * factor
