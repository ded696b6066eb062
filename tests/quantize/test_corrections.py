"""Whatever images calibrate, a corrected graph is not worse than plain rounding."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit.core.console import Console
from edgekit.graph.variants import lookup_node
from edgekit.graph.view import constants, copied
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.corrections import (
    Attempt,
    Corrections,
    HeldOut,
    correct,
    first_no_worse,
    some_of,
)
from edgekit.quantize.recipes import Recipe
from edgekit.targets.dialects import DIALECTS
from tests import bundles
from tests.quantize.test_bias import hostile

QUIET = Console(verbosity=-1)
PLAIN = Recipe(images=32, rounding="nearest", bias_correction="none")
ALL = Recipe(images=32)


@functools.cache
def plain() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """NNCF's graph with nothing corrected, and the float one."""
    made = bundles.made()
    original = onnx.load(made.onnx)
    graph, report = calibrate(
        original,
        bundles.images(32, seed=3),
        bundles.images(32, seed=4),
        made.card.preprocessing,
        PLAIN,
        DIALECTS["openvino"],
        QUIET,
    )
    assert (report.rounded, report.corrected, report.held_back) == (0, 0, "")
    return graph, original


def corrected(
    images: NDArray[np.uint8], held_out: NDArray[np.uint8], recipe: Recipe = ALL
) -> tuple[onnx.ModelProto, Corrections]:
    graph, original = plain()
    preprocessing = bundles.made().card.preprocessing
    return correct(graph, original, images, held_out, preprocessing, recipe, QUIET)


def harm(graph: onnx.ModelProto, images: NDArray[np.uint8]) -> float:
    return HeldOut(plain()[1], images, bundles.made().card.preprocessing).harm(graph)


def test_ordinary_images_help() -> None:
    others = bundles.images(128, seed=9)
    graph, found = corrected(bundles.images(64, seed=3), bundles.images(64, seed=4))
    assert harm(graph, others) < 0.9 * harm(plain()[0], others)
    assert found.harm_after < found.harm_before
    assert not found.dropped


@pytest.mark.parametrize("kind", ["black", "white", "noise", "checkers", "one outlier"])
@pytest.mark.parametrize("count", [1, 24])
def test_no_images_harm(kind: str, count: int) -> None:
    held_out = bundles.images(48, seed=4)
    graph, _ = corrected(hostile(kind, count), held_out)
    assert harm(graph, held_out) <= harm(plain()[0], held_out)
    others = bundles.images(256, seed=9)  # nobody's choice was made on these
    assert harm(graph, others) <= 1.05 * harm(plain()[0], others)


def shifted(by: float) -> tuple[onnx.ModelProto, Corrections]:
    """The calibrated graph with the first convolution's biases wrong by a share of their size."""
    graph = copied(plain()[0])
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    tensor = constants(graph)[first.input[2]]
    bias = numpy_helper.to_array(tensor)
    off = (bias + by * np.abs(bias).max()).astype(bias.dtype)
    tensor.CopyFrom(numpy_helper.from_array(off, tensor.name))
    return graph, Corrections(pixels=True)


def test_what_makes_answers_worse_is_dropped_and_said() -> None:
    """Errors of single layers cannot see everything; the answers do."""
    held_out = HeldOut(plain()[1], bundles.images(32, seed=4), bundles.made().card.preprocessing)
    worse: dict[str, Attempt] = {
        "rounding together with biases": lambda: shifted(1.0),
        "biases": lambda: shifted(0.5),
    }
    graph, found = first_no_worse(plain()[0], worse, held_out.harm)
    assert graph is plain()[0]
    assert found.dropped == ("rounding together with biases", "biases")
    assert found.harm_after == found.harm_before
    assert found.message() == (
        "dropped rounding together with biases, biases: answers to held-out images got worse"
    )

    last = shifted(0.0)  # as good as plain rounding
    graph, found = first_no_worse(plain()[0], {**worse, "rounding": lambda: last}, held_out.harm)
    assert graph is last[0]
    assert found.pixels
    assert found.dropped == ("rounding together with biases", "biases")
    assert found.harm_after <= found.harm_before


def test_nothing_behind_the_feature_is_compiled() -> None:
    """The codebook and the tables may be gigabytes; the feature that is judged needs neither."""

    def without_codebook(model: onnx.ModelProto) -> onnx.ModelProto:
        lookup = lookup_node(model)
        assert lookup is not None
        light = copied(model)
        light.graph.initializer.remove(constants(light)[lookup.input[1]])
        return light

    graph, original = plain()
    images, preprocessing = bundles.images(4), bundles.made().card.preprocessing
    light = HeldOut(without_codebook(original), images, preprocessing)
    assert light.harm(without_codebook(graph)) == pytest.approx(harm(graph, images), rel=1e-3)


def test_a_recipe_that_asks_for_nothing_gets_nothing() -> None:
    recipe = dataclasses.replace(ALL, rounding="nearest", bias_correction="none")
    images = bundles.images(4)
    graph, found = corrected(images, images, recipe)
    assert graph is plain()[0]
    assert found.message() == ""


def test_corrections_take_some_of_many_images() -> None:
    """From all over the calibration images, whose order may mean something."""
    images = np.arange(400, dtype=np.uint16).view(np.uint8).reshape(-1, 1, 1, 2)
    assert np.array_equal(some_of(images[:150]), images[:150])
    taken = some_of(images).ravel().view(np.uint16)
    assert len(np.unique(taken)) == 150
    assert (np.diff(taken.astype(int)) > 0).all()
    assert [np.count_nonzero(taken // 100 == part) > 25 for part in range(4)] == [True] * 4
    assert 0.3 < (taken % 2).mean() < 0.7
