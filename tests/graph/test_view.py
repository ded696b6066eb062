"""The one view of a graph that every pass looks through."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.graph.view import (
    Graph,
    attributes,
    copied,
    drop_unused,
    insert_after,
    replace_input,
    with_outputs,
)
from tests.quantize.graphs import quantized


def small() -> onnx.ModelProto:
    """x -> Relu -> Clip (no least value) -> Mul with itself; a Neg and a constant lead nowhere."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="relu"),
        helper.make_node("Clip", ["positive", "", "most"], ["clipped"], name="clip"),
        helper.make_node("Neg", ["positive"], ["negative"], name="neg"),
        helper.make_node("Mul", ["clipped", "clipped"], ["y"], name="square"),
    ]
    stored = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("most", 6.0), ("nobody's", 1.0))
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def names(nodes: list[onnx.NodeProto]) -> list[str]:
    return [node.name for node in nodes]


def test_who_makes_and_who_reads() -> None:
    graph = Graph(small())
    assert graph.producer["clipped"].name == "clip"
    assert names(graph.readers["positive"]) == ["clip", "neg"]
    assert names(graph.readers["clipped"]) == ["square", "square"]
    assert "" not in graph.readers  # an input left out is no value that nodes share
    assert names(graph.depending_on(["clipped"])) == ["square"]
    assert names(graph.depending_on(["x"])) == ["relu", "clip", "neg", "square"]
    assert graph.outputs == {"y"}


def test_what_leads_nowhere_is_dropped_with_its_constants() -> None:
    model = small()
    drop_unused(model)
    assert names(list(model.graph.node)) == ["relu", "clip", "square"]
    assert [tensor.name for tensor in model.graph.initializer] == ["most"]
    kept = with_outputs(small(), ["negative"])
    drop_unused(kept)
    assert "neg" in names(list(kept.graph.node))


def test_inserted_nodes_stand_where_their_inputs_are_known() -> None:
    model = small()
    half = [
        helper.make_node("Neg", ["clipped"], ["minus"], name="minus"),
        helper.make_node("Neg", ["minus"], ["again"], name="plus"),
    ]
    replace_input(Graph(model).readers["clipped"], "clipped", "again")
    insert_after(model, {"clipped": half})
    assert names(list(model.graph.node)) == ["relu", "clip", "minus", "plus", "neg", "square"]
    assert list(model.graph.node[-1].input) == ["again", "again"]
    onnx.checker.check_model(model, full_check=True)


def test_a_copy_does_not_change_what_it_was_made_of() -> None:
    model = small()
    before = model.SerializeToString(deterministic=True)
    drop_unused(copied(model))
    assert model.SerializeToString(deterministic=True) == before


def test_eight_bits_are_seen_through_poolings_and_weights_through_pairs() -> None:
    graph = Graph(quantized())
    assert graph.is_quantized("pool")
    assert not graph.is_quantized("relu")
    assert graph.is_constant("w1_dq")
    assert not graph.is_constant("images_dq")
    quantize = graph.quantizer(graph.producer["relu_dq"])
    assert quantize is not None
    assert quantize.input[0] == "relu"
    assert graph.quantizer(graph.producer["w1_dq"]) is None
    assert attributes(graph.producer["conv2"])["group"] == 4
    assert attributes(graph.producer["relu"]) == {}


def test_float_values_behind_a_pair_pass_through_a_copy_of_the_pooling() -> None:
    graph = Graph(quantized())
    added: dict[str, onnx.NodeProto] = {}
    assert graph.unquantized("relu_dq", added) == "relu"
    assert not added
    assert graph.unquantized("pool", added) == "pool/float"
    assert list(added["pool"].input) == ["relu"]
