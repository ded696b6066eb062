"""Branches that add zero: gone where that is certain, left alone where it is not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import edgekit.export.exporter as export_module
from edgekit.export.tracing import prepare, trace
from edgekit.graph.view import copied
from edgekit.graph.zero_branches import drop_zero_branches
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.runtime.onnxruntime import named_outputs, open_session
from tests.export.models import card
from tests.training.transformers import TinyTransformer, needs_timm, silence

X: list[int | str] = ["batch", 4, 6]


def graph_of(
    nodes: list[onnx.NodeProto],
    shapes: dict[str, list[int | str]],
    **stored: np.ndarray,
) -> onnx.ModelProto:
    """A graph of ``x`` [batch, 4, 6] that returns ``y``, of the first one's shape."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "test",
        [value("x", TensorProto.FLOAT, X)],
        [value("y", TensorProto.FLOAT, next(iter(shapes.values())))],
        [numpy_helper.from_array(array.astype(np.float32), n) for n, array in stored.items()],
        value_info=[value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def branch(weight: float = 0.0, bias: float = 0.0, **changed: np.ndarray) -> onnx.ModelProto:
    """``y = relu(x + scale * (relu(x) W + b))``."""
    nodes = [
        helper.make_node("Relu", ["x"], ["inner"]),
        helper.make_node("MatMul", ["inner", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["linear"]),
        helper.make_node("Mul", ["linear", "scale"], ["scaled"]),
        helper.make_node("Add", ["x", "scaled"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    stored = {
        "weight": np.full((6, 6), weight),
        "bias": np.full(6, bias),
        "scale": np.full(6, 0.1),
    }
    names = ("inner", "product", "linear", "scaled", "sum")
    return graph_of(nodes, dict.fromkeys(names, X), **(stored | changed))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_branch_goes_with_all_that_only_fed_it() -> None:
    model = branch()
    assert drop_zero_branches(model) == 1
    assert operators(model) == ["Relu"]
    assert list(model.graph.node[0].input) == ["x"]
    assert not model.graph.initializer
    assert not model.graph.value_info
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    "model",
    [
        branch(weight=1e-30),
        branch(bias=1e-30),
        branch(weight=float("nan")),
        branch(weight=1.0),  # its bias is zero, but a stored zero is no branch
    ],
)
def test_what_may_be_something_else_than_zero_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert drop_zero_branches(model) == 0
    assert model.SerializeToString() == before


def test_branches_on_branches_and_products_of_two_dimensions() -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "zero", "none"], ["first"], transB=1),
        helper.make_node("Add", ["first", "flat"], ["one"]),
        helper.make_node("Gemm", ["one", "zero"], ["second"]),
        helper.make_node("Identity", ["second"], ["same"]),
        helper.make_node("Add", ["one", "same"], ["two"]),
        helper.make_node("Gemm", ["two", "full", "none"], ["third"]),
        helper.make_node("Add", ["two", "third"], ["y"]),
    ]
    flat: list[int | str] = ["batch", 24]
    names = ("flat", "first", "one", "second", "same", "two", "third")
    model = graph_of(
        nodes,
        dict.fromkeys(names, flat),
        zero=np.zeros((24, 24)),
        none=np.zeros(24),
        full=np.eye(24),
    )
    assert drop_zero_branches(model) == 2
    assert operators(model) == ["Flatten", "Gemm", "Add"]
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    session = open_session(model.SerializeToString())
    np.testing.assert_array_equal(named_outputs(session, x)["y"], 2 * x.reshape(3, 24))


def test_windows_that_were_shifted_and_convolutions() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "zero"], ["product"]),
        helper.make_node("Slice", ["product", "begin", "middle", "axis"], ["left"]),
        helper.make_node("Slice", ["product", "middle", "end", "axis"], ["right"]),
        helper.make_node("Concat", ["right", "left"], ["rolled"], axis=1),
        helper.make_node("Add", ["rolled", "x"], ["one"]),
        helper.make_node("Conv", ["one", "kernel", "none"], ["convolved"]),
        helper.make_node("Add", ["one", "convolved"], ["two"]),
        helper.make_node("Relu", ["two"], ["y"]),
    ]
    shapes: dict[str, list[int | str]] = {
        **dict.fromkeys(("one", "product", "rolled", "convolved", "two"), X),
        "left": ["batch", 1, 6],
        "right": ["batch", 3, 6],
    }
    stored = {"zero": np.zeros((6, 6)), "kernel": np.zeros((4, 4, 1)), "none": np.zeros(4)}
    model = graph_of(nodes, shapes, **stored)
    for name, number in (("begin", 0), ("middle", 1), ("end", 4), ("axis", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    onnx.checker.check_model(model, full_check=True)
    assert drop_zero_branches(model) == 2
    assert operators(model) == ["Relu"]


@pytest.mark.parametrize("case", ["broadcast", "unknown", "output"])
def test_an_addition_that_does_more_than_add_stays(case: str) -> None:
    model = branch()
    infos = {value.name: value for value in model.graph.value_info}
    if case == "broadcast":  # of what the zeros are added to
        (total,) = (node for node in model.graph.node if node.output[0] == "sum")
        total.input[0] = "row"
        row = numpy_helper.from_array(np.ones((1, 1, 6), np.float32), "row")
        model.graph.initializer.append(row)
    elif case == "unknown":
        infos["sum"].type.tensor_type.shape.dim[1].ClearField("dim_value")
    else:
        model.graph.node.pop()
        model.graph.output[0].name = "sum"
    before = model.SerializeToString()
    assert drop_zero_branches(model) == 0
    assert model.SerializeToString() == before


@needs_timm
def test_an_exported_transformer_is_smaller_and_answers_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = VQSA(TinyTransformer(), 3, VQSAConfig(output="none")).eval()
    # Attention, an MLP behind LayerScale, and both branches of the last block.
    silence(model.backbone, "blocks.0.attn", "blocks.1.mlp", "blocks.2.attn", "blocks.2.mlp")
    prepared = prepare(model, tables=True, margin=True)
    traced = trace(prepared, (32, 32), 18, "dynamic")
    # Tracing takes seconds, and this is the same graph.
    monkeypatch.setattr(export_module, "trace", lambda *_: copied(traced))
    path = tmp_path / "m.onnx"
    export_module.export_onnx(model, card(model, "transformer"), path)
    smaller = onnx.load(path)
    assert operators(traced).count("Softmax") == 3
    assert operators(traced).count("LayerNormalization") == 7
    assert operators(smaller).count("Softmax") == 1
    assert operators(smaller).count("LayerNormalization") == 3
    assert len(smaller.graph.node) < 0.6 * len(traced.graph.node)
    assert path.stat().st_size < 0.6 * traced.ByteSize()
    computed = {name for node in smaller.graph.node for name in node.output}
    computed |= {tensor.name for tensor in smaller.graph.initializer}
    assert {value.name for value in smaller.graph.value_info} <= computed
    images = torch.randn(3, 3, 32, 32).numpy()
    before, after = (
        named_outputs(open_session(one.SerializeToString(), optimized=False), images)["logits"]
        for one in (traced, smaller)
    )
    np.testing.assert_array_equal(after, before)
