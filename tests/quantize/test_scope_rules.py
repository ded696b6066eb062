"""Which parts of a backbone stay float by rule: found by what the graph does, not by names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import parse_toml
from edgekit.data.transforms import Preprocessing
from edgekit.graph.legalize import legalize
from edgekit.graph.view import Graph
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.float_scope import (
    activations,
    attention_products,
    batch_norms,
    float_scope,
    gated_depthwise,
    normed_sums,
    squeeze_excite,
)
from edgekit.quantize.recipes import Recipe, read_recipe
from edgekit.targets.dialects import DIALECTS

SIDE = 24
IMAGES = f"float[batch, 3, {SIDE}, {SIDE}] images"


def graph(
    body: str, output: str, inputs: str = IMAGES, **constants: tuple[int, ...]
) -> onnx.ModelProto:
    """A model of one node a line, each called as its first output; constants are random."""
    head = '<ir_version: 10, opset_import: ["" : 18]>'
    model = parser.parse_model(f"{head} test ({inputs}) => (float[] {output}) {{{body}}}")
    for node in model.graph.node:
        node.name = node.output[0]
    random = np.random.default_rng(0)
    for name, shape in constants.items():
        values = random.normal(0, 0.4, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def with_axes(model: onnx.ModelProto, *axes: int, name: str = "axes") -> onnx.ModelProto:
    model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
    return model


ATTENTION = """
    q = MatMul(x, wq)  qb = Add(q, bq)  k = MatMul(x, wk)  v = MatMul(x, wv)
    scaled = Mul(qb, root)  turned = Transpose<perm = [0, 2, 1]>(k)
    logits = MatMul(scaled, turned)  masked = Add(logits, mask)
    weights = Softmax<axis = -1>(masked)  sums = MatMul(weights, v)  out = MatMul(sums, wo)
"""
ATTENTION_WEIGHTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8)), "bq": (8,), "root": (), "mask": (5, 5),
}  # fmt: skip


def test_attention_is_its_two_products_and_not_its_projections() -> None:
    model = graph(ATTENTION, "out", "float[batch, 5, 8] x", **ATTENTION_WEIGHTS)
    between = {"logits", "masked", "weights", "sums"}
    assert set(attention_products(model)) == between | {"scaled", "turned"}


def test_a_classifiers_softmax_is_none() -> None:
    body = "y = MatMul(x, w)  p = Softmax(y)"
    assert attention_products(graph(body, "p", "float[batch, 8] x", w=(8, 3))) == []


GATES = {
    "as one operator": "gate = HardSigmoid(s2)",
    "as several": "g1 = Add(s2, three)  g2 = Clip(g1, zero, six)  gate = Div(g2, six)",
}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("order", ["map, gate", "gate, map"])
def test_squeeze_excite_is_the_gates_and_their_product(gate: str, order: str) -> None:
    body = f"""
        stem = Conv(images, w0)  half = Sigmoid(stem)  map = Mul(stem, half)
        pooled = ReduceMean<keepdims = 1>(map, axes)
        s1 = Conv(pooled, w1)  r = Relu(s1)  s2 = Conv(r, w2)
        {gate}
        scaled = Mul({order})  out = Conv(scaled, w3)
    """
    model = graph(
        body, "out", w0=(8, 3, 1, 1), w1=(4, 8, 1, 1), w2=(8, 4, 1, 1), w3=(8, 8, 1, 1),
        three=(), zero=(), six=(),
    )  # fmt: skip
    found = set(squeeze_excite(with_axes(model, 2, 3)))
    assert {"pooled", "s1", "r", "s2", "gate", "scaled"} <= found
    assert found.isdisjoint({"stem", "half", "map", "out"})


@pytest.mark.parametrize("gated", [True, False])
def test_depthwise_convolutions_beside_gates(gated: bool) -> None:
    body = """
        stem = Conv(images, w0)  d1 = Conv<group = 8>(stem, w1)
        pooled = ReduceMean<keepdims = 1>(d1, axes)  gate = Sigmoid(pooled)
        scaled = Mul(FIRST, gate)  grouped = Conv<group = 4>(scaled, w2)
        out = Conv<group = 8>(grouped, w1)
    """.replace("FIRST", "d1" if gated else "stem")
    model = with_axes(graph(body, "out", w0=(8, 3, 1, 1), w1=(8, 1, 1, 1), w2=(8, 2, 1, 1)), 2, 3)
    assert gated_depthwise(model) == (["d1", "out"] if gated else [])


def test_a_gate_made_of_another_map_is_no_squeeze_excite() -> None:
    body = """
        a = Conv(images, w0)  b = Conv(images, w1)
        pooled = ReduceMean<keepdims = 1>(a, axes)  gate = Sigmoid(pooled)  out = Mul(b, gate)
    """
    model = with_axes(graph(body, "out", w0=(8, 3, 1, 1), w1=(8, 3, 1, 1)), 2, 3)
    assert squeeze_excite(model) == []


FUNCTIONS = {
    "GELU": (
        "a = Div(x, root)  b = Erf(a)  c = Add(b, one)  d = Mul(half, c)  y = Mul(x, d)",
        {"a", "b", "c", "d", "y"},
    ),
    "SiLU": ("a = Sigmoid(x)  y = Mul(a, x)", {"a", "y"}),
    "hard-swish": (
        "a = Add(x, three)  b = Clip(a, zero, six)  c = Mul(x, b)  y = Div(c, six)",
        {"a", "b", "c"},
    ),
    # No function of x alone, or none that is written as a product.
    "a gated unit": ("o = Relu(z)  a = Sigmoid(o)  y = Mul(x, a)", set()),
    "a layer's scale": ("y = Mul(x, scale)", set()),
    "one operator": ("y = HardSwish(x)", set()),
    "across positions": ("a = Softmax(x)  y = Mul(x, a)", set()),
}


@pytest.mark.parametrize(("body", "kept"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_activations_in_pieces_stay_whole(body: str, kept: set[str]) -> None:
    scalars: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("root", "one", "half", "three", "zero", "six"), ()
    )
    inputs = "float[batch, 8] x, float[batch, 8] z"
    assert set(activations(graph(body, "y", inputs, scale=(8,), **scalars))) == kept


def test_batch_norms_that_no_convolution_absorbs() -> None:
    body = """
        c = Conv(images, w)  absorbed = BatchNormalization(c, g, g, g, v)
        r = Relu(absorbed)  y = BatchNormalization(r, g, g, g, v)
    """
    assert batch_norms(graph(body, "y", w=(8, 3, 1, 1), g=(8,), v=(8,))) == ["y"]


RESIDUAL = """
    e = Add(x, bias)  p = MatMul(e, w1)  b = Add(p, bias)  s1 = Add(e, b)
    {norm}  h = MatMul(n, w2)  s2 = Add(s1, h)  out = MatMul(s2, w1)
"""


@pytest.mark.parametrize(
    ("norm", "kept"),
    [("n = LayerNormalization(s1, g, bias)", {"e", "s1", "s2"}), ("n = Relu(s1)", set())],
)
def test_sums_of_a_network_with_layer_norms(norm: str, kept: set[str]) -> None:
    inputs = "float[batch, 5, 8] x"
    model = graph(
        RESIDUAL.format(norm=norm), "out", inputs, w1=(8, 8), w2=(8, 8), bias=(8,), g=(8,)
    )
    assert set(normed_sums(model)) == kept


def everything() -> onnx.ModelProto:
    """A small network in which every rule finds something, from images to numbers."""
    body = f"""
        stem = Conv<pads = [1, 1, 1, 1]>(images, w0)  half = Sigmoid(stem)  map = Mul(stem, half)
        pooled = ReduceMean<keepdims = 1>(map, axes)
        s1 = Conv(pooled, w1)  gate = Sigmoid(s1)  scaled = Mul(map, gate)
        patches = Conv<strides = [{SIDE // 2}, {SIDE // 2}]>(scaled, w2)
        rows = Reshape(patches, shape)  x = Transpose<perm = [0, 2, 1]>(rows)
        q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
        turned = Transpose<perm = [0, 2, 1]>(k)  logits = MatMul(q, turned)
        weights = Softmax<axis = -1>(logits)  sums = MatMul(weights, v)  o = MatMul(sums, wo)
        stream = Add(x, o)  n = LayerNormalization(stream, g, g)
        h = MatMul(n, wq)  last = Add(stream, h)  out = MatMul(last, wk)
    """
    patch = (8, 8, SIDE // 2, SIDE // 2)
    model = graph(
        body, "out", w0=(8, 3, 3, 3), w1=(8, 8, 1, 1), w2=patch, g=(8,),
        wq=(8, 8), wk=(8, 8), wv=(8, 8), wo=(8, 8),
    )  # fmt: skip
    return with_axes(with_axes(model, 2, 3), 0, 8, -1, name="shape")


KEPT = {
    "turned": "attention",
    "half": "activations",
    "map": "activations",
    "pooled": "squeeze-excite",
    "s1": "squeeze-excite",
    "gate": "squeeze-excite",
    "scaled": "squeeze-excite",
    "logits": "attention",
    "weights": "attention",
    "sums": "attention",
    "stream": "normed-sums",
    "last": "normed-sums",
}


def test_every_node_has_its_reason_and_recipes_decide() -> None:
    model = everything()
    assert (
        float_scope(model, Recipe()) == KEPT | {"turned": "attention"}
        or float_scope(model, Recipe()) == KEPT
    )
    assert float_scope(model, Recipe(keep=())) == {}
    assert set(float_scope(model, Recipe(keep=("attention",))).values()) == {"attention"}
    assert float_scope(model, Recipe(keep=(), ignored=("h",))) == {"h": "ignored"}
    assert read_recipe("clean").keep == ()
    with pytest.raises(UsageError, match="'keep' must be one of"):
        parse_toml('keep = ["softmax"]', Recipe, "recipe.toml")


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_what_is_kept_reads_no_rounded_value(dialect: str) -> None:
    """Neither does NNCF put pairs there, nor does a dialect's rewriting; the rest is in INT8."""
    recipe = Recipe(images=8, rounding="nearest", bias_correction="fast")
    model, _ = calibrate(
        everything(),
        np.random.default_rng(3).integers(0, 256, (8, SIDE, SIDE, 3)).astype(np.uint8),
        np.random.default_rng(4).integers(0, 256, (8, SIDE, SIDE, 3)).astype(np.uint8),
        Preprocessing(size=(SIDE, SIDE)),
        recipe,
        DIALECTS[dialect],
        Console(verbosity=-1),
    )
    legal = legalize(model, DIALECTS[dialect])
    flow = Graph(legal)
    rounded = {
        node.name
        for node in legal.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Transpose")
        and any(flow.is_quantized(name) for name in node.input)
    }
    assert rounded.isdisjoint(KEPT)
    assert {"stem", "patches", "q", "k", "v", "o", "h", "out"} <= rounded
