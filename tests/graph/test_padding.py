"""What ``auto_pad`` leaves to the input's size is said in numbers, and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.graph.padding import pads_of, with_explicit_pads


def convolution(size: tuple[int | str, int | str], **options: object) -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 4)).astype(np.float32)
    shape = ["batch", 3, *size]
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Relu", ["x"], ["r"], "relu"),
                helper.make_node("Conv", ["r", "w"], ["y"], "conv", **options),
            ],
            "convolution",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, None, None])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def run(model: onnx.ModelProto, size: tuple[int, int]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(1).normal(0, 1, (2, 3, *size)).astype(np.float32)
    result: NDArray[np.float32] = session.run(None, {"x": images})[0]
    return result


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3], [4, 5]])
@pytest.mark.parametrize("size", [(9, 8), (12, 11)])
def test_the_same_in_numbers(kind: str, strides: list[int], size: tuple[int, int]) -> None:
    model = convolution(size, auto_pad=kind, strides=strides)
    found = with_explicit_pads(model, size)
    pads = pads_of(found.graph.node[1])
    assert pads is not None
    assert sum(pads) > 0
    assert pads_of(model.graph.node[1]) is None  # the model itself stays as it was
    np.testing.assert_array_equal(run(found, size), run(model, size))


def test_dilations_count() -> None:
    model = convolution((9, 8), auto_pad="SAME_UPPER", dilations=[2, 2])
    assert pads_of(with_explicit_pads(model, (9, 8)).graph.node[1]) == [2, 3, 2, 3]


def test_what_needs_nothing_is_not_copied() -> None:
    for options in ({"pads": [1, 2, 3, 4]}, {"auto_pad": "VALID"}, {}):
        model = convolution((9, 8), **options)
        assert with_explicit_pads(model, (9, 8)) is model
        assert pads_of(model.graph.node[1]) == options.get("pads", [0, 0, 0, 0])


def test_a_file_for_any_size_is_told_the_images() -> None:
    model = convolution(("height", "width"), auto_pad="SAME_UPPER", strides=[2, 3])
    found = with_explicit_pads(model, (9, 8))
    assert pads_of(found.graph.node[1]) == [1, 1, 1, 1]
    np.testing.assert_array_equal(run(found, (9, 8)), run(model, (9, 8)))


def test_a_value_that_is_also_an_output() -> None:
    model = convolution((9, 8), auto_pad="SAME_UPPER")
    output = helper.make_tensor_value_info("r", TensorProto.FLOAT, ["batch", 3, 9, 8])
    model.graph.output.append(output)
    assert pads_of(with_explicit_pads(model, (9, 8)).graph.node[1]) == [1, 1, 1, 2]


def test_what_cannot_be_told_stays() -> None:
    """Behind an operator whose output's shape nobody can infer."""
    model = convolution((9, 8), auto_pad="SAME_UPPER")
    model.graph.node[0].domain = "somebody"
    model.opset_import.append(helper.make_opsetid("somebody", 1))
    assert pads_of(with_explicit_pads(model, (9, 8)).graph.node[1]) is None
