"""Graphs and tensors for OpenVINO's operators that are not what was validated: no byte beyond.

Each runs in a process of its own, because reading out of bounds may end it.
"""

import subprocess
import sys

import pytest

START = """
import numpy as np, onnx, openvino as ov
from onnx import TensorProto, helper, numpy_helper
import edgekit
from tests.native.test_openvino_extension import lookup_model

core = ov.Core()
core.add_extension(edgekit.extension_path())

ATTRIBUTES = dict(plugin_version="1", metric="dot", margin=0, residual=0,
                  rest_step=0.1, rest_zero=0, rest_signed=1,
                  fused_step=0.1, fused_zero=0, fused_signed=0)

def head(rows, width, classes, narrow=None, **attributes):
    random = np.random.default_rng(0)
    arrays = {
        "codebook": random.normal(size=(rows, width)).astype(np.float32),
        "norm": np.ones((rows, 1), np.float32),
        "table": np.ones((rows, 4 * width), np.int8),
        "table_steps": np.ones((rows, 2), np.float32),
        "projection": np.ones((3 * width, width), np.int8),
        "projection_steps": np.ones(3 * width, np.float32),
        "classifier": np.ones((classes, width), np.int8),
        "classifier_steps": np.ones(classes, np.float32),
        "classifier_bias": np.ones(classes, np.float32),
    }
    stored = [numpy_helper.from_array(a, n) for n, a in arrays.items() if n != narrow]
    nodes = []
    if narrow:
        shape = arrays[narrow].shape
        half = bytes(-(-arrays[narrow].size // 2))
        name = narrow + "_stored"
        stored.append(helper.make_tensor(name, TensorProto.INT4, shape, half, raw=True))
        nodes.append(helper.make_node("Cast", [name], [narrow], to=TensorProto.INT8))
    nodes.append(helper.make_node("VQSAHead", ["features", *arrays], ["logits", "code"],
                                  domain="edgekit", **{**ATTRIBUTES, **attributes}))
    graph = helper.make_graph(
        nodes, "head", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", classes]),
         helper.make_tensor_value_info("code", TensorProto.INT64, ["B"])], stored)
    return helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid("edgekit", 1)])

def read(model):
    return core.read_model(model.SerializeToString())

def tensors(model, batch):
    kinds = {"i64": np.int64, "f32": np.float32}
    return [ov.Tensor(np.zeros((batch, 2)[: o.get_partial_shape().rank.get_length()],
                               kinds[o.get_element_type().get_type_name()])) for o in model.outputs]

def refused(call):
    try:
        call()
    except RuntimeError as error:
        print(" ".join(str(error).split()))
    else:
        print("not refused")
"""


# OpenVINO unloads an extension with its core, although nodes of Python's still need its code.
END = """
import os, sys
sys.stdout.flush()
os._exit(0)
"""


def said(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + code + END],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", ["table", "projection", "classifier"])
def test_weights_of_four_bits_are_refused(name: str) -> None:
    """Their types were looked at behind the conversion to 8 bits, their bytes read before it."""
    found = said(f"refused(lambda: read(head(20_000, 64, 3000, narrow={name!r})))")
    assert "cannot be stored as i4" in found


@pytest.mark.parametrize("zero", [-129, 1 << 40])
def test_zeros_of_more_than_eight_bits_are_refused(zero: int) -> None:
    assert f"zero {zero} is no 8-bit number" in said(
        f"refused(lambda: read(head(4, 8, 2, rest_zero={zero})))"
    )


def test_the_head_runs_on_what_was_validated() -> None:
    code = """
model = read(head(4, 8, 2))
out = tensors(model, 3)
assert model.evaluate(out, [ov.Tensor(np.ones((3, 8), np.float32))])
print(list(out[0].shape), list(out[1].shape))
"""
    assert said(code) == "[3, 2] [3]\n"


@pytest.mark.parametrize("shape", ["(300, 1)", "(3, 9)", "(200_000,)", "(2, 4, 8)"])
@pytest.mark.parametrize("model", ["head(4, 8, 2)", "lookup_model(np.eye(8, dtype=np.float32), 8)"])
def test_features_of_another_width_are_refused(shape: str, model: str) -> None:
    code = f"""
model = read({model})
features = ov.Tensor(np.ones({shape}, np.float32))
refused(lambda: model.evaluate(tensors(model, {shape}[0]), [features]))
"""
    found = said(code)
    assert "not refused" not in found
    assert found.strip()


def test_codebooks_of_another_width_are_refused() -> None:
    """One that is an input, not a constant."""
    code = """
model = read(lookup_model(None, 8))
refused(lambda: model.evaluate(tensors(model, 50), [
    ov.Tensor(np.ones((50, 8), np.float32)), ov.Tensor(np.ones((40, 5000), np.float32))]))
"""
    assert "expected rows of 5000" in said(code)


def test_operators_called_by_themselves_look_too() -> None:
    code = """
model = read(head(4, 8, 2))
(node,) = [op for op in model.get_ops() if op.get_type_name() == "VQSAHead"]
inputs = [ov.Tensor(np.zeros(list(i.get_partial_shape().get_max_shape())[-1:], np.float32))
          for i in node.inputs()]
inputs[0] = ov.Tensor(np.ones((2, 8), np.float32))
refused(lambda: node.evaluate(tensors(model, 2), inputs))
"""
    assert "the codebook is not the one that was packed" in said(code)


def test_a_lost_error_of_the_head_leaves_no_answer() -> None:
    """OpenVINO loses it where there is one thread; before, the last image's answer stayed."""
    code = """
request = core.compile_model(
    read(head(4, 8, 2)), "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
features = np.ones((1, 8), np.float32)
request.infer([features])
print(*(found.tolist() for found in request.infer([features * np.nan]).values()))
"""
    assert said(code) == "[[nan, nan]] [-1]\n"
