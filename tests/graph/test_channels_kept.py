"""Channels stay where an operator would make something else of a zero, or might."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.graph.zero_channels import remove_zero_channels

Node = tuple[str, list[str], dict[str, Any]]
X = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
ONES = np.ones((1, 8, 1, 1), np.float32)


def between(nodes: Sequence[Node], constants: dict[str, Any], shape: Sequence[int]) -> Any:
    """``nodes`` read a convolution, half of whose channels are zero, and another reads them.

    They call the former's output ``a`` and their own results ``b``, ``c`` and so on.
    """
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((8, 3, 1, 1), dtype=np.float32)
    weights[:4] = 0
    stored = {
        "w": weights,
        "v": rng.standard_normal((5, shape[1], *[1] * (len(shape) - 2)), dtype=np.float32),
        **{name: np.asarray(value) for name, value in constants.items()},
    }
    made = [helper.make_node("Conv", ["x", "w"], ["a"], name="first")]
    last = "a"
    for place, (kind, inputs, options) in enumerate(nodes):
        last = chr(ord("b") + place)
        made.append(helper.make_node(kind, inputs, [last], name=last, **options))
    made.append(helper.make_node("Conv", [last, "v"], ["y"], name="second"))
    graph = helper.make_graph(
        made,
        "between",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def answers(model: onnx.ModelProto) -> NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    (result,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})
    return np.asarray(result)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


MAP = (2, 8, 8, 8)
HALVES = floats(*[1] * 8).reshape(1, 8, 1, 1)
KEPT: dict[str, tuple[list[Node], dict[str, Any], Sequence[int]]] = {
    "clip above 0": ([("Clip", ["a", "low"], {})], {"low": np.float32(1)}, MAP),
    "clip below 0": ([("Clip", ["a", "", "high"], {})], {"high": np.float32(-1)}, MAP),
    "a number divided": ([("Div", ["one", "a"], {})], {"one": np.float32(1)}, MAP),
    "0 / 0": ([("Div", ["a", "zero"], {})], {"zero": 0 * HALVES}, MAP),
    "a number added": ([("Add", ["a", "one"], {})], {"one": np.float32(1)}, MAP),
    "pads with 1": (
        [("Pad", ["a", "pads", "one"], {})],
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": np.float32(1)},
        (2, 8, 10, 10),
    ),
    "pads channels": (
        [("Pad", ["a", "pads"], {})],
        {"pads": np.array([0, 2, 0, 0, 0, 0, 0, 0])},
        (2, 10, 8, 8),
    ),
    "mean of channels": (
        [("ReduceMean", ["a", "axes"], {}), ("Mul", ["a", "b"], {})],
        {"axes": np.array([1])},
        MAP,
    ),
    "mean of images": ([("ReduceMean", ["a", "axes"], {})], {"axes": np.array([0, 2, 3])}, MAP),
    "softmax": ([("Softmax", ["a"], {"axis": 1})], {}, MAP),
    "exponential": ([("Exp", ["a"], {})], {}, MAP),
    "transposed": ([("Transpose", ["a"], {"perm": [0, 2, 1, 3]})], {}, MAP),
    "grouped": (
        [("Conv", ["a", "u"], {"group": 2})],
        {"u": np.ones((8, 4, 1, 1), np.float32)},
        MAP,
    ),
    "weights of two layers": (
        [("Conv", ["a", "u"], {}), ("Conv", ["b", "u"], {})],
        {"u": np.ones((8, 8, 1, 1), np.float32)},
        MAP,
    ),
}


@pytest.mark.parametrize("kind", KEPT)
def test_nothing_is_removed(kind: str) -> None:
    nodes, constants, shape = KEPT[kind]
    model = between(nodes, constants, shape)
    before = answers(model)
    assert remove_zero_channels(model) == 0
    np.testing.assert_array_equal(answers(model), before)


REMOVED: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "nothing between": ([], {}),
    "clip with a bound in a list": ([("Clip", ["a", "low"], {})], {"low": floats(-1)}),
    "divided by a number for each": ([("Div", ["a", "k"], {})], {"k": 3 * HALVES}),
    "pads with 0": (
        [("Pad", ["a", "pads"], {})],
        {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2])},
    ),
    "some factors are 0": ([("Mul", ["k", "a"], {})], {"k": floats(*range(8)).reshape(8, 1, 1)}),
    "a stored tensor, computed": (
        [("Neg", ["k"], {}), ("Mul", ["a", "b"], {})],
        {"k": HALVES},
    ),
}


@pytest.mark.parametrize("kind", REMOVED)
def test_the_answers_stay(kind: str) -> None:
    """Whether or not the channels go."""
    nodes, constants = REMOVED[kind]
    model = between(nodes, constants, MAP)
    before = answers(model)
    removed = remove_zero_channels(model)
    np.testing.assert_allclose(answers(model), before, rtol=1e-5, atol=1e-5)
    assert removed == (0 if kind == "a stored tensor, computed" else 4)


def test_the_body_of_a_branch_reads_unseen() -> None:
    model = between([("Relu", ["a"], {})], {"yes": np.array(True)}, MAP)
    then = helper.make_graph(
        [helper.make_node("ReduceMean", ["b"], ["t"], keepdims=0)],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [])],
    )
    other = helper.make_graph(
        [helper.make_node("ReduceMax", ["b"], ["o"], keepdims=0)],
        "else",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [])],
    )
    model.graph.node.extend(
        [
            helper.make_node("If", ["yes"], ["m"], then_branch=then, else_branch=other),
            helper.make_node("Add", ["y", "m"], ["z"]),
        ]
    )
    model.graph.output[0].name = "z"
    before = answers(model)
    assert remove_zero_channels(model) == 0
    np.testing.assert_array_equal(answers(model), before)
