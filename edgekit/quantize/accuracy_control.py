"""Accuracy control: layers go back to float until the loss is small enough.

`edgekit.quantize.sensitivity` ranks the layers once; bisection then finds the shortest prefix of
that ranking whose loss, paired with the float model on the same images, is acceptable. What
decides is the graph that will run, which is the legalized one.
"""

from __future__ import annotations

import dataclasses
import time

import onnx

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.graph.layers import quantized_layers, weight_names, with_float
from edgekit.graph.legalize import legalize
from edgekit.metrics.intervals import Interval
from edgekit.metrics.verdicts import verdict
from edgekit.quantize.engine import answers
from edgekit.quantize.metric import Metric
from edgekit.quantize.probe import Probe, difference
from edgekit.quantize.results import Controlled
from edgekit.quantize.sensitivity import measure
from edgekit.runtime.answers import Answers
from edgekit.targets.dialects import Dialect

RANKED_IMAGES = 32  # of the probe: the ranking only has to tell large from small


def control(
    calibrated: onnx.ModelProto,
    original: onnx.ModelProto,
    probe: Probe,
    *,
    max_drop: float,
    metric: Metric,
    dialect: Dialect,
    console: Console,
) -> tuple[onnx.ModelProto, Controlled]:
    """The calibrated graph with as few layers in float as ``max_drop`` allows.

    A loss is acceptable if its interval lies below ``max_drop``, or straddles it with an estimate
    that does not exceed it: 200 images can seldom prove half a point.
    """
    start = time.monotonic()
    flat = probe.flat()
    reference = answers(original, flat, probe.preprocessing)
    losses: dict[int, Interval] = {}
    ranking: list[str] = []

    def loss(count: int) -> Interval:
        if count not in losses:
            model = with_float(calibrated, original, ranking[:count])
            losses[count] = _loss(model, probe, reference, metric, dialect)
            interval = losses[count]
            console.detail(
                f"{count} layers in float: {interval.estimate:.2f} "
                f"[{interval.lower:.2f}, {interval.upper:.2f}] points"
            )
        return losses[count]

    def good(count: int) -> bool:
        outcome = verdict(loss(count), max_drop).outcome
        return outcome == "pass" or (outcome == "undecided" and loss(count).estimate <= max_drop)

    enough = 0
    if not good(0):
        ranking = measure(calibrated, original, _first(probe, RANKED_IMAGES), console).ranking()
        bad, enough = 0, len(quantized_layers(calibrated))
        while enough - bad > 1:
            middle = (bad + enough) // 2
            bad, enough = (bad, middle) if good(middle) else (middle, enough)
    weights = weight_names(original)
    nodes = tuple(ranking[:enough])
    controlled = Controlled(
        metric=metric,
        max_drop=max_drop,
        before=loss(0),
        after=loss(enough),
        outcome=verdict(loss(enough), max_drop).outcome,
        reverted=tuple(weights.get(name, name) for name in nodes),
        nodes=nodes,
        images=len(probe.pixels),
        variants=probe.pixels.shape[1],
        evaluations=len(losses),
        seconds=time.monotonic() - start,
    )
    return with_float(calibrated, original, nodes), controlled


def _loss(
    model: onnx.ModelProto, probe: Probe, reference: Answers, metric: Metric, dialect: Dialect
) -> Interval:
    legal = legalize(model, dialect) if dialect.rewrites else model
    drop = difference(probe, reference, answers(legal, probe.flat(), probe.preprocessing)).drop(
        metric
    )
    if drop is None:
        need = {
            "corruption-error": "labels that mean the model's classes: use code-agreement",
            "code-agreement": "a model with a codebook: use corruption-error",
        }
        raise UsageError(f"metric '{metric}' needs {need[metric]}")
    return drop


def _first(probe: Probe, images: int) -> Probe:
    return dataclasses.replace(
        probe,
        pixels=probe.pixels[:images],
        labels=None,  # the ranking does not use them
        cells=probe.cells[:images],
    )
