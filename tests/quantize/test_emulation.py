"""An INT8 graph in float32 computes what its integers do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.quantize.emulation import in_float
from tests.quantize.graphs import quantized


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": images})
    return np.asarray(found)


@pytest.mark.parametrize("zero_point", [0, 3])
def test_it_gives_the_same_answers(zero_point: int) -> None:
    model = quantized(zero_point=zero_point, by_channel=False)
    images = np.random.default_rng(0).normal(0, 1, (4, 3, 8, 8)).astype(np.float32)
    emulated = in_float(model)
    onnx.checker.check_model(emulated, full_check=True)
    assert np.abs(run(emulated, images) - run(model, images)).max() < 1e-5


def test_only_weights_change() -> None:
    model = quantized()
    emulated = in_float(model)
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    stored = {tensor.name for tensor in model.graph.initializer}
    weights = [node for node in weights if node.input[0] in stored]
    assert len(model.graph.node) - len(emulated.graph.node) == len(weights) == 2
    kinds = {tensor.name: tensor.data_type for tensor in emulated.graph.initializer}
    assert all(kinds[node.output[0]] == onnx.TensorProto.FLOAT for node in weights)
    assert not {"w1", "w2", "w1_scale"} & set(kinds)
