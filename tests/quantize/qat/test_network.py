"""The calibrated graph as a torch network: same numbers, gradients to scales, and back again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.graph.legalize import legalize
from edgekit.quantize.calibrate import calibrate
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.equivalence import prove
from edgekit.quantize.qat.fake_quantize import fake_quantize
from edgekit.quantize.qat.losses import divergence, losses
from edgekit.quantize.qat.network import Network
from edgekit.quantize.qat.operators import run_operator
from edgekit.quantize.qat.results import Validation
from edgekit.quantize.recipes import Recipe
from edgekit.targets.dialects import DIALECTS
from tests import bundles
from tests.quantize.graphs import quantized


class Start(NamedTuple):
    made: bundles.Made
    original: onnx.ModelProto
    graph: onnx.ModelProto
    rounding: str

    def pixels(self, count: int, seed: int) -> NDArray[np.float32]:
        return self.made.card.preprocessing.normalize(bundles.images(count, seed=seed))


@pytest.fixture(
    scope="module",
    params=[
        ("pooled", "nearest"),
        ("spatial", "nearest"),
        ("pooled", "least-error"),
        ("spatial", "least-error"),
    ],
    ids="-".join,
)
def start(request: pytest.FixtureRequest) -> Start:
    quantize, rounding = request.param
    made = bundles.made(quantize=quantize)
    original = onnx.load(made.onnx)
    graph, _ = calibrate(
        original,
        bundles.images(12, seed=3),
        bundles.images(12, seed=4),
        made.card.preprocessing,
        # Plain rounding leaves something to learn; corrections leave too little for 20 steps.
        Recipe(
            images=12,
            rounding=rounding,
            bias_correction="none" if rounding == "nearest" else "full",
        ),
        DIALECTS["openvino"],
        Console(verbosity=-1),
    )
    return Start(made, original, graph, rounding)


def test_fake_quantization_rounds_as_onnx_and_gives_the_scale_its_gradient() -> None:
    x = torch.tensor([-9.0, -0.75, -0.25, 0.0, 0.26, 0.5, 1.5, 99.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    found = fake_quantize(x, scale, -3, 3)
    assert found.tolist() == [-1.5, -1.0, 0.0, 0.0, 0.5, 0.5, 1.5, 1.5]  # half to even
    weights = torch.arange(1.0, 9.0)
    (found * weights).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]
    level = x.detach() / 0.5
    inside = torch.tensor([0, 1, 1, 1, 1, 1, 1, 0])
    slope = level.round().clamp(-3, 3) - level * inside
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(float((slope * weights).sum()))


def test_a_scale_a_channel_gets_a_gradient_a_channel() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = torch.full((1, 3, 1, 1), 0.1, requires_grad=True)
    fake_quantize(x, whole, -128, 127).square().sum().backward()
    assert whole.grad is not None
    for channel in range(3):
        alone = torch.tensor(0.1, requires_grad=True)
        fake_quantize(x[:, channel], alone, -128, 127).square().sum().backward()
        assert alone.grad is not None
        assert float(whole.grad[0, channel, 0, 0]) == pytest.approx(float(alone.grad), rel=1e-4)


def test_it_starts_as_the_calibrated_graph_to_the_last_bit(start: Start) -> None:
    network = Network(start.graph, start.original)
    before = {t.name: t for t in start.graph.graph.initializer}
    after = {t.name: t for t in network.to_onnx().graph.initializer}
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert np.array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(after[name]))
    # The float weights are the original's, not the rounded ones; or next to them in the level
    # that the calibration has chosen.
    stored = {t.name: numpy_helper.to_array(t) for t in start.original.graph.initializer}
    values = {name: network.value(name).detach().numpy() for name in network.weights}
    assert len(values) == 5
    exact = [
        any(np.array_equal(value, other) for other in stored.values()) for value in values.values()
    ]
    assert sum(exact) == (5 if start.rounding == "nearest" else 2)
    for value in values.values():
        alike = [other for other in stored.values() if other.shape == value.shape]
        level = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True) / 127
        assert min(np.abs((value - other) / level).mean() for other in alike) < 0.5


def test_the_float_graph_is_the_float_model(start: Start) -> None:
    network = Network(start.original)
    pixels = bundles.images(16, seed=5)
    expected = start.made.expect(pixels)
    found = network(torch.from_numpy(start.made.card.preprocessing.normalize(pixels)))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert found.code is not None
    assert expected.code is not None
    assert torch.equal(found.code, expected.code)
    assert not network.log_scales


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_what_was_trained_is_what_is_written(start: Start, dialect: str) -> None:
    """Random changes of all that learns, in every dialect's form."""
    network = Network(legalize(start.graph, DIALECTS[dialect]), start.original)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for scale in network.log_scales.values():
            scale.add_(0.3 * torch.randn(scale.shape, generator=generator))
        for weight in [*network.weights.values(), *network.biases.values()]:
            weight.add_(4 * torch.randn(weight.shape, generator=generator))
    written = network.to_onnx()
    onnx.checker.check_model(written)
    proof = prove(written, network, start.pixels(24, seed=6))
    assert proof.codes == 24 * (1 if start.made.model.config.quantize == "pooled" else 12)
    assert proof.different_codes == 0
    assert proof.logits_error < 1e-5
    assert proof.edge_values <= proof.values // 1000
    assert proof.values > 10_000


def test_another_network_is_refused(start: Start) -> None:
    network = Network(start.graph, start.original)
    other = Network(start.graph, start.original)
    with torch.no_grad():
        next(iter(other.weights.values())).add_(3.0)
    with pytest.raises(EdgekitError, match="computes other values than the network that was"):
        prove(other.to_onnx(), network, start.pixels(4, seed=6))
    other = Network(start.graph, start.original)
    with torch.no_grad():
        list(other.biases.values())[-1].add_(100.0)  # of the classifier: behind every pair
    with pytest.raises(EdgekitError, match="logits differ by"):
        prove(other.to_onnx(), network, start.pixels(4, seed=6))


def test_gradients_reach_weights_biases_and_every_scale(start: Start) -> None:
    network = Network(start.graph, start.original)
    images = torch.from_numpy(start.pixels(24, seed=7))
    original = Network(start.original)(images)
    labels = torch.arange(24) % len(bundles.CLASSES)
    losses(network(images), original, labels, FinetuneConfig()).total.backward()
    for group in (network.weights, network.biases, network.log_scales):
        for name, parameter in group.items():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def flips(network: Network, start: Start, seed: int) -> int:
    images = torch.from_numpy(start.pixels(600, seed=seed))
    with torch.no_grad():
        ours, original = network(images).code, Network(start.original)(images).code
    assert ours is not None
    assert original is not None
    return int((ours != original).sum())


def test_code_consistency_reduces_flips_on_new_images(start: Start) -> None:
    def trained(code_weight: float) -> int:
        network = Network(start.graph, start.original)
        config = FinetuneConfig(
            code_weight=code_weight, distill_weight=0, feature_weight=0, task_weight=1 - code_weight
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        images = torch.from_numpy(start.pixels(96, seed=11))
        original = Network(start.original).requires_grad_(False)(images)
        labels = original.logits.argmax(dim=1)
        for _ in range(20):
            optimizer.zero_grad()
            losses(network(images), original, labels, config).total.backward()
            optimizer.step()
        return flips(network, start, seed=12)

    before = flips(Network(start.graph, start.original), start, seed=12)
    with_codes, without = trained(1.0), trained(0.0)
    assert before > 0
    assert with_codes < without
    # Weights that were rounded with the others in view leave less to gain: random ones, nothing.
    if start.rounding == "nearest":
        assert with_codes < before


def test_divergence_is_zero_at_equality_and_known_elsewhere() -> None:
    a = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    b = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    assert float(divergence(a, a + 3)) == pytest.approx(0, abs=1e-7)
    expected = (0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert float(divergence(a, b)) == pytest.approx(expected, rel=1e-5)


def test_a_graph_with_max_pooling_and_zero_points() -> None:
    """Scales by channel, pooling between pairs, and an asymmetric activation."""
    for graph in (quantized(), quantized(zero_point=3, by_channel=False)):
        network = Network(with_logits(graph))
        images = np.random.default_rng(2).standard_normal((3, 3, 8, 8)).astype(np.float32)
        proof = prove(network.to_onnx(), network, images)
        assert proof.logits_error < 1e-6
        assert proof.values > 0


def with_logits(graph: onnx.ModelProto) -> onnx.ModelProto:
    for node in graph.graph.node:
        node.output[:] = ["logits" if name == "sum" else name for name in node.output]
    graph.graph.output[0].name = "logits"
    return graph


def test_an_unknown_operator_is_named() -> None:
    graph = with_logits(quantized())
    graph.graph.node[-1].op_type = "Einsum"
    with pytest.raises(EdgekitError, match="cannot run the ONNX operator Einsum: calibrate"):
        Network(graph)


X = np.random.default_rng(0).uniform(0.1, 2, (2, 3, 5, 6)).astype(np.float32)
ROWS = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


UNARY = ("Relu", "Sigmoid", "Tanh", "Exp", "Erf", "Sqrt", "Identity")
BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
CASES: list[tuple[str, list[NDArray[Any]], dict[str, Any]]] = [
    ("AveragePool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 1, 1, 0]}),
    ("GlobalAveragePool", [X], {}),
    ("Flatten", [X], {"axis": 2}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Reshape", [X, ints(0, -1, 6)], {}),
    ("Squeeze", [X[:, :1], ints(1)], {}),
    ("Unsqueeze", [X, ints(-1, 0)], {}),
    ("Slice", [X, ints(1), ints(-1), ints(3), ints(2)], {}),
    ("Split", [X], {"axis": 2, "num_outputs": 3}),
    ("Split", [X, ints(1, 4)], {"axis": 2}),
    ("Concat", [X, X[:, :, :2]], {"axis": 2}),
    ("Gather", [X, ints(2, 0)], {"axis": 3}),
    ("GatherND", [ROWS, np.array([[3], [0]])], {}),
    ("ReduceMean", [X, ints(2, 3)], {"keepdims": 0}),
    ("ReduceSum", [X, ints(-1)], {}),
    ("ReduceSumSquare", [X, ints(1)], {"keepdims": 0}),
    ("Softmax", [X], {"axis": 1}),
    ("Gemm", [ROWS, ROWS, ROWS[:, 0][:4]], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [ROWS, ROWS.T.copy()], {}),
    ("LayerNormalization", [X, X[0, 0, 0], X[1, 0, 0]], {"axis": -1, "epsilon": 1e-3}),
    ("BatchNormalization", [X, *(np.array([1.5, 2, 3], np.float32),) * 4], {"epsilon": 0.1}),
    ("HardSigmoid", [ROWS], {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", [3 * ROWS], {}),
    ("Gelu", [ROWS], {"approximate": "tanh"}),
    ("Clip", [ROWS, np.array(-0.5), np.array(0.5)], {}),
    *[(kind, list[NDArray[Any]]([X]), dict[str, Any]()) for kind in UNARY],
    *[(kind, list[NDArray[Any]]([X, X[:, :1]]), dict[str, Any]()) for kind in BINARY],
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operators_compute_what_onnx_runtime_does(
    case: tuple[str, list[NDArray[Any]], dict[str, Any]],
) -> None:
    kind, arrays, options = case
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays]
    names = [f"in{number}" for number in range(len(arrays))]
    count = 3 if options.get("num_outputs") else 2 if kind == "Split" else 1
    outputs = [f"out{number}" for number in range(count)]
    node = helper.make_node(kind, names, outputs, **options)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays, strict=True)
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(outputs, dict(zip(names, arrays, strict=True)))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    found = run_operator(kind, [torch.from_numpy(np.array(a)) for a in arrays], attributes)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-5, atol=2e-6)


def test_luck_is_no_reason_to_keep_a_network() -> None:
    def validation(error: float, same: float) -> Validation:
        return Validation(100, 0.1, 0.1, error, 0.2, same, same, 0.9)

    assert validation(0.19, 0.8).criterion == validation(0.2, 0.8).criterion
    assert (
        validation(0.2, 0.9).criterion
        < validation(0.19, 0.8).criterion
        < validation(0.21, 0.99).criterion
    )
