"""The lint against a dialect: every rule on a graph that breaks it, none on one that fits."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgekit.cli.check import check as command
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.graph.legalize import legalize
from edgekit.graph.lint import check_file, check_model
from edgekit.graph.lookup import LookupSpec, lookup_function
from edgekit.graph.variants import to_variant
from edgekit.targets.dialects import find_dialect
from edgekit.targets.operators import LOOKUP_NODE, Variant
from tests.quantize.graphs import quantized

TENSORRT = find_dialect("tensorrt")


def rules(model, dialect=TENSORRT) -> dict[str, str]:
    """Rule -> node; every message must be one line with a fix."""
    found: dict[str, str] = {}
    for finding in check_model(model, dialect):
        assert "\n" not in finding.describe()
        assert finding.fix
        found.setdefault(finding.rule, finding.node)
    return found


def edited(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (node,) = [node for node in model.graph.node if node.name == name]
    return node


def store(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name == name]:
        model.graph.initializer.remove(tensor)
    model.graph.initializer.append(numpy_helper.from_array(value, name))


@pytest.fixture
def legal():
    return legalize(quantized(), TENSORRT)


def test_a_legal_graph_has_no_findings(legal):
    assert check_model(legal, TENSORRT) == []


def test_nncf_form_is_named_rule_by_rule():
    found = rules(quantized())
    assert found == {
        "signed": "node_relu_q",
        "activation-scale": "node_relu_q",
        "fused-addition": "node_sum",
    }
    assert check_model(quantized(), find_dialect("openvino")) == []
    assert rules(quantized(), find_dialect("onnxruntime")) == {"activation-scale": "node_relu_q"}


def test_zero_points(legal):
    assert rules(quantized(zero_point=3))["zero-point"] == "node_relu_q"
    node = node_of(legal, "node_relu_q")
    store(legal, node.input[2], np.array(1, np.int8))
    assert "zero-point" in rules(legal)


def test_a_missing_zero_point_means_uint8(legal):
    del node_of(legal, "node_relu_q").input[2]
    (finding,) = check_model(legal, TENSORRT)
    assert (finding.rule, finding.node) == ("signed", "node_relu_q")
    assert "default" in finding.message


def test_a_quantized_bias(legal):
    store(legal, "bias8", np.arange(4, dtype=np.int32))
    store(legal, "bias_scale", np.full(4, 1e-3, np.float32))
    node = helper.make_node(
        "DequantizeLinear", ["bias8", "bias_scale"], ["bias_f"], "dq_bias", axis=0
    )
    legal.graph.node.insert(0, node)
    node_of(legal, "node_conv1").input[2] = "bias_f"
    assert rules(legal) == {"float-bias": "dq_bias"}


def test_weights_by_input_channel(legal):
    weights = node_of(legal, "node_w1_dq")
    weights.attribute[0].i = 1
    store(legal, weights.input[1], np.full(3, 1e-3, np.float32))
    store(legal, weights.input[2], np.zeros(3, np.int8))
    assert rules(legal) == {"weight-axis": "node_w1_dq"}


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_cannot_be(legal, value):
    node = node_of(legal, "node_relu_q")
    store(legal, node.input[1], np.array(value, np.float32))
    assert rules(legal) == {"positive-scale": "node_relu_q"}
    assert rules(legal, find_dialect("openvino")) == {"positive-scale": "node_relu_q"}


def test_a_scale_computed_at_run_time(legal):
    legal.graph.node.insert(0, helper.make_node("ReduceMax", ["images"], ["found"], keepdims=0))
    node_of(legal, "node_images_q").input[1] = "found"
    assert rules(legal) == {"constant-scale": "node_images_q"}


def test_operators_on_integers(legal):
    node = helper.make_node("ConvInteger", ["images_q", "w1"], ["integers"], "by_hand")
    legal.graph.node.append(node)
    found = rules(legal)
    assert found["operator"] == "by_hand"
    assert found["paired"] == "node_images_q"


def test_an_operator_from_nowhere(legal):
    node = helper.make_node("NonMaximum", ["images"], ["x"], "odd", domain="com.example")
    legal.graph.node.append(node)
    assert rules(legal) == {"operator": "odd"}


def test_an_old_opset(legal):
    legal.opset_import[0].version = 11
    assert rules(legal) == {"opset": "test"}


# A head: features -> lookup -> table, sigmoid; and a product with weights.
def head(*, form: Variant = "function", round_at: str = "") -> onnx.ModelProto:
    random = np.random.default_rng(0)
    constants = {
        "codebook": random.standard_normal((5, 4)).astype(np.float32),
        "table": random.standard_normal((5, 4)).astype(np.float32),
        "weights": random.integers(-127, 128, (3, 4)).astype(np.int8),
        "scale": np.array(0.02, np.float32),
        "zero": np.array(0, np.int8),
    }
    nodes = []

    def add(kind, inputs, output, **more):
        nodes.append(helper.make_node(kind, inputs, [output], f"node_{output}", **more))
        return output

    def rounded(name: str, always: bool = False) -> str:
        if name != round_at and not always:
            return name
        add("QuantizeLinear", [name, "scale", "zero"], f"{name}_q")
        return add("DequantizeLinear", [f"{name}_q", "scale", "zero"], f"{name}_dq")

    lookup = LookupSpec("dot", margin=False, rows=5)
    nodes.append(
        helper.make_node(
            "CodebookLookup", [rounded("features"), rounded("codebook")], ["code"], LOOKUP_NODE,
            domain="edgekit", **lookup.attributes(),
        )
    )  # fmt: skip
    add("Gather", [rounded("table"), "code"], "row")
    add("Sub", ["row", "features"], "difference")
    add("Sigmoid", [rounded("difference")], "gate")
    add("DequantizeLinear", ["weights", "scale", "zero"], "weights_dq")
    add("Gemm", [rounded("gate", always=True), "weights_dq"], "logits", transB=1)
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("code", TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("edgekit", 1)]
    model = helper.make_model(
        graph, opset_imports=opsets, functions=[lookup_function(lookup, 18)], ir_version=10
    )
    onnx.checker.check_model(model)
    return to_variant(model, form)


@pytest.mark.parametrize("form", ["function", "inline", "plugin"])
def test_a_float_head_with_quantized_weights_fits(form):
    assert rules(head(form=form)) == {}


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino", "onnxruntime"])
@pytest.mark.parametrize("form", ["function", "inline"])
@pytest.mark.parametrize(
    ("where", "rule", "node"),
    [
        ("features", "float-lookup", ""),
        ("codebook", "float-lookup", ""),
        ("table", "float-head", "node_row"),
        ("difference", "float-head", "node_gate"),
    ],
)
def test_no_rounding_in_the_head(dialect, form, where, rule, node):
    found = rules(head(form=form, round_at=where), find_dialect(dialect))
    assert set(found) == {rule}
    assert found[rule] == (node or (LOOKUP_NODE if form == "function" else f"{LOOKUP_NODE}/scores"))


def test_int32_indices():
    model = head()
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT32
    assert rules(model) == {"int64-indices": LOOKUP_NODE}


def test_plugin_attributes():
    model = head(form="plugin")
    node = node_of(model, LOOKUP_NODE)
    for attribute in [item for item in node.attribute if item.name == "plugin_version"]:
        node.attribute.remove(attribute)
    assert rules(model) == {"plugin-attributes": LOOKUP_NODE}


def test_a_cpu_without_vnni_wants_half_the_range():
    model = quantized()
    assert rules(model, find_dialect("openvino-novnni")) == {"saturation": "node_w1_dq"}
    half = edited(model)
    for name, found in (("w1", {"saturation": "node_w2_dq"}), ("w2", {})):
        weights = numpy_helper.to_array(
            next(tensor for tensor in half.graph.initializer if tensor.name == name)
        )
        store(half, name, (weights // 2).astype(np.int8))
        assert rules(half, find_dialect("openvino-novnni")) == found


def test_files_that_are_none(tmp_path):
    for content in (b"", b"not onnx at all", None):
        path = tmp_path / f"{content is None}.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match="cannot read") as caught:
            check_file(path if content is not None else tmp_path / "missing.onnx", TENSORRT)
        assert "\n" not in str(caught.value)


def test_the_command(tmp_path, legal):
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(legal, good)
    onnx.save(quantized(), bad)
    runner = CliRunner()
    done = runner.invoke(command, [str(good), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["findings"] == []
    done = runner.invoke(command, [str(bad)])
    assert isinstance(done.exception, EdgekitError)
    assert "node_relu_q" in str(done.exception)
    assert "activation-scale" in done.stdout
    done = runner.invoke(command, [str(good), "--plugin", "x.so"])
    assert isinstance(done.exception, UsageError)
    done = runner.invoke(command, [str(good), "--dialect", "tensorrtt"])
    assert "did you mean 'tensorrt'" in str(done.exception)
