"""Biases take a layer's shift back, and never make it worse."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.graph.padding import with_explicit_pads
from edgekit.quantize.bias import CorrectedBiases, correct_biases, trimmed_mean
from edgekit.quantize.emulation import in_float
from edgekit.quantize.engine import compile_graph, run_compiled
from edgekit.quantize.layer_inputs import measure
from edgekit.quantize.layer_means import graph_of_means
from tests import bundles

PREPROCESSING: Preprocessing = dataclasses.replace(bundles.made().card.preprocessing)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A convolution in INT8 and in float, with what stands before it."""

    int8: onnx.ModelProto
    exact: onnx.ModelProto

    def off(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """By how much every channel's mean over positions is off, for every image."""
        batch = {"images": PREPROCESSING.normalize(images)}
        found = [
            run_compiled(compile_graph(graph), [batch])[0]["y"].astype(np.float64)
            for graph in (in_float(self.int8), self.exact)
        ]
        result: NDArray[np.float64] = (found[0] - found[1]).mean(axis=(2, 3))
        return result


def correct(pair: Pair, images: NDArray[np.uint8], held_out: NDArray[np.uint8]) -> CorrectedBiases:
    exact = with_explicit_pads(pair.exact, bundles.SIZE)
    means = graph_of_means(pair.int8, exact)
    measured = measure(means, exact, images, held_out, PREPROCESSING, Console(verbosity=-1))
    return correct_biases(pair.int8, measured)


def convolution(*, pool: bool = False, kernel: int = 3, groups: int = 3, version: int = 18) -> Pair:
    """Weights of 4 bits, so that the shift is clear; ``pool`` puts a MaxPool behind the pair."""
    random = np.random.default_rng(0)
    weight = random.normal(0, 1, (3, 3 // groups, kernel, kernel)).astype(np.float32)
    weight[:, :, 0, 0] = 12  # coarse steps for the others
    scale = (np.abs(weight).max((1, 2, 3)) / 7).astype(np.float32)
    stored = np.round(weight / scale[:, None, None, None]).astype(np.int8)

    def model(int8: bool) -> onnx.ModelProto:
        constants = {"bias": np.ones(3, np.float32)}
        nodes = [helper.make_node("Relu", ["images"], ["r"], name="relu")]
        source, weights = "r", "w"
        if int8:
            constants |= {"w8": stored, "ws": scale, "wz": np.zeros(3, np.int8)}
            constants |= {"xs": np.array(0.02, np.float32), "xz": np.array(0, np.int8)}
            nodes += [
                helper.make_node("QuantizeLinear", ["r", "xs", "xz"], ["x8"], name="q"),
                helper.make_node("DequantizeLinear", ["x8", "xs", "xz"], ["xd"], name="d"),
                helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wd"], name="dw", axis=0),
            ]
            source, weights = "xd", "wd"
        else:
            constants["w"] = weight
        if pool:
            nodes.append(
                helper.make_node(
                    "MaxPool", [source], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
                )
            )
            source = "p"
        nodes.append(
            helper.make_node("Conv", [source, weights, "bias"], ["y"], name="conv", group=groups)
        )
        graph = helper.make_graph(
            nodes,
            "convolution",
            [
                helper.make_tensor_value_info(
                    "images", TensorProto.FLOAT, ["batch", 3, *bundles.SIZE]
                )
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, None, None])],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10
        )

    return Pair(model(True), model(False))


def assert_all_is_read(model: onnx.ModelProto) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    assert stored == stored & {name for node in model.graph.node for name in node.input}


@pytest.mark.parametrize("pool", [False, True], ids=["direct", "behind a MaxPool"])
@pytest.mark.parametrize("form", [(3, 3), (1, 1)], ids=["depthwise", "1x1"])
@pytest.mark.parametrize("version", [13, 18])  # the oldest that is calibrated, and ours
def test_a_shift_is_taken_back(pool: bool, form: tuple[int, int], version: int) -> None:
    kernel, groups = form
    pair = convolution(pool=pool, kernel=kernel, groups=groups, version=version)
    images, others = bundles.images(64), bundles.images(64, seed=1)
    before = np.square(pair.off(others)).mean()
    found = correct(pair, images, others)
    assert (found.layers, found.channels) == (1, 3)
    assert found.changed > 0
    assert np.square(pair.off(others)).mean() < 0.8 * before
    assert_all_is_read(pair.int8)  # the replaced bias is gone


@pytest.mark.parametrize("size", ["known", "any"])
def test_padding_that_depends_on_the_size(size: str) -> None:
    """A convolution pads what the images' size asks for, whether the file states it or not."""
    pair = convolution()
    for model in (pair.int8, pair.exact):
        (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
        conv.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
        if size == "any":
            for axis, side in ((2, "height"), (3, "width")):
                model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = side
    assert_is_corrected(pair)


@pytest.mark.parametrize("kind", ["Identity", "Transpose"])
def test_weights_that_are_passed_on_first(kind: str) -> None:
    pair = convolution()
    for model in (pair.int8, pair.exact):
        (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
        before = conv.input[1]
        if kind == "Transpose":  # what is stored is turned the other way around
            for tensor in model.graph.initializer:
                if tensor.name in ("w", "w8"):
                    turned = numpy_helper.to_array(tensor).transpose(3, 2, 1, 0)
                    tensor.CopyFrom(numpy_helper.from_array(turned.copy(), tensor.name))
            for node in model.graph.node:
                if node.name == "dw":
                    node.attribute[0].i = 3
        options = {"perm": [3, 2, 1, 0]} if kind == "Transpose" else {}
        passed = helper.make_node(kind, [before], ["passed"], name="pass", **options)
        conv.input[1] = "passed"
        model.graph.node.insert(len(model.graph.node) - 1, passed)
    assert_is_corrected(pair)


def assert_is_corrected(pair: Pair) -> None:
    images, others = bundles.images(64), bundles.images(64, seed=1)
    before = np.square(pair.off(others)).mean()
    assert correct(pair, images, others).layers == 1
    assert np.square(pair.off(others)).mean() < 0.8 * before


def test_the_bias_stays_in_the_range_of_what_the_layer_gives_out() -> None:
    """Behind a MaxPool the weights' scale once got lost, and biases of 2,690 came of it."""
    pair = convolution(pool=True, kernel=1, groups=1)
    images = bundles.images(32)
    correct(pair, images, images)
    (bias,) = (t for t in pair.int8.graph.initializer if t.name == "conv/bias")
    taken = 1 - numpy_helper.to_array(bias)
    batch = {"images": PREPROCESSING.normalize(images)}
    spread = run_compiled(compile_graph(pair.exact), [batch])[0]["y"].std(axis=(0, 2, 3))
    assert (np.abs(taken) <= spread * (1 + 1e-4)).all()
    off = pair.off(images)  # what is left of it
    assert (np.abs(off.mean(axis=0)) < 0.3 * np.abs(taken)).all()


def hostile(kind: str, count: int) -> NDArray[np.uint8]:
    shape = (count, *bundles.SIZE, 3)
    random = np.random.default_rng(7)
    if kind == "one outlier":
        images = bundles.images(count)
        images[0] = random.choice([0, 255], shape[1:]).astype(np.uint8)
        return images
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": random.integers(0, 256, shape, dtype=np.uint8),
        "checkers": np.broadcast_to(
            (np.indices(bundles.SIZE).sum(axis=0) % 2 * 255).astype(np.uint8)[None, ..., None],
            shape,
        ).copy(),
    }[kind]


@pytest.mark.parametrize("kind", ["black", "white", "noise", "checkers", "one outlier"])
@pytest.mark.parametrize("count", [1, 2, 24])
def test_no_images_make_it_worse(kind: str, count: int) -> None:
    pair = convolution()
    others = bundles.images(48, seed=1)
    batch = {"images": PREPROCESSING.normalize(others)}
    exact = run_compiled(compile_graph(pair.exact), [batch])[0]["y"]
    size = np.square(exact, dtype=np.float64).mean(axis=(1, 2, 3))
    weights = 1 / np.maximum(size, np.median(size))
    before = weights @ np.square(pair.off(others))
    correct(pair, hostile(kind, count), others)
    assert (weights @ np.square(pair.off(others)) <= before * (1 + 1e-6)).all()


def test_layers_that_share_a_bias_are_corrected_each() -> None:
    """Exporters store equal biases once."""
    pair = convolution()
    second = onnx.NodeProto()
    for model in (pair.int8, pair.exact):
        (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
        second.CopyFrom(conv)
        second.name, second.output[0] = "conv2", "y2"
        model.graph.node.append(second)
        model.graph.output.append(
            helper.make_tensor_value_info("y2", TensorProto.FLOAT, ["batch", 3, None, None])
        )
    found = correct(pair, bundles.images(16), bundles.images(16, seed=1))
    assert found.layers == 2
    biases = {node.input[2] for node in pair.int8.graph.node if node.op_type == "Conv"}
    assert biases == {"conv/bias", "conv2/bias"}
    names = [tensor.name for tensor in pair.int8.graph.initializer]
    assert len(names) == len(set(names))
    assert_all_is_read(pair.int8)
    onnx.checker.check_model(pair.int8)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=10, max_size=60),
    st.floats(-1e12, 1e12),
)
def test_one_value_in_ten_cannot_move_the_mean_out_of_the_others(
    usual: list[float], odd: float
) -> None:
    values = np.array([*usual, odd])[:, None]
    found = float(trimmed_mean(values, np.ones(len(values)))[0])
    assert min(usual) - 1e-9 <= found <= max(usual) + 1e-9


def test_a_mean_of_one_or_two_is_their_mean() -> None:
    assert trimmed_mean(np.array([[3.0]]), np.ones(1))[0] == 3
    assert trimmed_mean(np.array([[3.0], [5.0]]), np.ones(2))[0] == 4
    assert trimmed_mean(np.array([[3.0], [5.0]]), np.array([3.0, 1.0]))[0] == 3.5
