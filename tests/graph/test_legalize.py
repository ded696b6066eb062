"""What legalization changes in a graph, and that it computes nearly the same afterwards."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.graph.legalize import legalize
from edgekit.runtime.onnxruntime import named_outputs, open_session
from edgekit.targets.dialects import find_dialect
from tests.quantize.graphs import CHANNELS, quantized

TENSORRT = find_dialect("tensorrt")


def run(model: onnx.ModelProto, images: np.ndarray, fuse: bool = True) -> np.ndarray:
    return named_outputs(open_session(model.SerializeToString(), optimized=fuse), images)["sum"]


def pairs(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    kinds = ("QuantizeLinear", "DequantizeLinear")
    return [node for node in model.graph.node if node.op_type in kinds]


def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(-2, 2, (5, 3, 8, 8)).astype(np.float32)


def test_tensorrt_gets_its_form_and_nearly_the_same_answer():
    model = quantized()
    legal = legalize(model, TENSORRT)
    onnx.checker.check_model(legal, full_check=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in legal.graph.initializer}
    for node in pairs(legal):
        zero = tensors[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        if node.input[0] not in tensors:
            assert tensors[node.input[1]].shape == (), node.name
            assert not node.attribute, node.name
    producer = {output: node for node in legal.graph.node for output in node.output}
    (addition,) = [node for node in legal.graph.node if node.op_type == "Add"]
    assert [producer[name].op_type for name in addition.input] == ["Conv", "DequantizeLinear"]
    (depthwise,) = [node for node in legal.graph.node if node.output[0] == "conv2"]
    assert producer[depthwise.input[0]].op_type == "DequantizeLinear"
    difference = np.abs(run(legal, images()) - run(model, images()))
    # Half the steps of the signed range: a step is at most 0.03 * 255 / 127.
    assert difference.max() < 0.5
    assert difference.mean() < 0.05


def test_a_pair_behind_a_pooling_rounds_nothing():
    """Only the pooling is optimized, so the answer is the very same."""
    model = quantized(by_channel=False)
    only_pools = type(TENSORRT)("only-pools", pools_in_int8=True)
    legal = legalize(model, only_pools)
    assert len(pairs(legal)) == len(pairs(model)) + 2
    np.testing.assert_array_equal(run(legal, images()), run(model, images()))


def test_scalar_activations_cover_every_channel():
    model = quantized(unsigned=False)
    legal = legalize(model, type(TENSORRT)("only-scalars", scalar_activations=True))
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in legal.graph.initializer}
    (quantize,) = [node for node in legal.graph.node if node.name == "node_relu_q"]
    assert before["relu_scale"].shape == (CHANNELS,)
    assert after[quantize.input[1]] == before["relu_scale"].max()
    assert before["w1_scale"].shape == after["w1_scale"].shape  # weights keep theirs


def test_onnxruntime_runs_depthwise_convolutions_only_with_one_scale():
    model = quantized(pooling=False)
    with pytest.raises(Fail, match="input zero point must be a scalar"):
        run(model, images())
    legal = legalize(model, find_dialect("onnxruntime"))
    assert len(pairs(legal)) == len(pairs(model))
    result = run(legal, images())
    assert np.isfinite(result).all()
    # What it should be: the graph as it was, without the fusions that refuse it.
    assert np.abs(result - run(model, images(), fuse=False)).mean() < 0.05


def test_other_dialects_change_nothing():
    model = quantized()
    for name in ("openvino", "openvino-novnni"):
        dialect = find_dialect(name)
        assert not dialect.rewrites
        assert legalize(model, dialect) == model


@pytest.mark.parametrize("by_channel", [True, False])
def test_zero_points_cannot_be_legalized(by_channel):
    model = quantized(zero_point=3, by_channel=by_channel)
    with pytest.raises(EdgekitError, match=r"preset = 'performance'"):
        legalize(model, TENSORRT)


def test_an_unknown_dialect_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'tensorrt'"):
        find_dialect("tensort")
