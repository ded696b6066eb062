"""Pruning: the share that was asked for, on the paper's schedule, out of the graph at the end."""

import itertools
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.core.errors import UsageError
from edgekit.export.exporter import export_onnx
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.base import deployable
from edgekit.training.methods.prunable import prunable
from edgekit.training.methods.prune import Gated, Prune
from edgekit.training.optimizer import learning_rate, shares_of_the_rest
from tests.export.models import SIZE, card, spread, tiny

FREE = [("entry_norm", "project_norm"), ("expand_norm", "depthwise_norm")]
CHANNELS = 10 + 14  # of these groups


class Inverted(Backbone):
    """A stem without batch norm, an inverted residual, and a last layer whose outputs are read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 4, 1)
        self.entry, self.entry_norm = nn.Conv2d(6, 10, 1, bias=False), nn.BatchNorm2d(10)
        self.expand, self.expand_norm = nn.Conv2d(10, 14, 1), nn.BatchNorm2d(14)
        self.depthwise = nn.Conv2d(14, 14, 3, 2, 1, groups=14, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(14)
        self.project, self.project_norm = nn.Conv2d(14, 10, 1), nn.BatchNorm2d(10)
        self.last, self.last_norm = nn.Conv2d(10, 16, 1), nn.BatchNorm2d(16)
        self.channels = 16

    def forward(self, images: Tensor) -> Tensor:
        x = self.entry_norm(self.entry(F.relu(self.stem(images))))
        y = F.hardswish(self.expand_norm(self.expand(x)))
        y = F.relu6(self.depthwise_norm(self.depthwise(y)))
        x = F.relu(F.max_pool2d(x, 2) + self.project_norm(self.project(y)))
        features: Tensor = self.last_norm(self.last(x))
        return features


def step(method: Prune, model: VQSA, share: float) -> None:
    """A step of the method, after which the model keeps its weights and gradients."""
    dtype = next(model.parameters()).dtype
    images = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    model.backbone.features(images, "pooled").square().sum().backward()
    method.advance(model, share)


def alive(model: VQSA, norm: str) -> int:
    return int(model.backbone.get_parameter(f"{norm}.weight").count_nonzero())


@torch.no_grad()
def inverted() -> VQSA:
    """With scales and shifts as training leaves them."""
    torch.manual_seed(0)
    model = VQSA(Inverted(), 3, VQSAConfig(codebook_size=8))
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.2, 1.5)
            module.bias.normal_()
    model.train()(torch.randn(4, 3, *SIZE))
    return spread(model)


def test_what_can_be_pruned_is_what_ends_behind_batch_norm() -> None:
    model = inverted().train()
    assert prunable(model.backbone, SIZE) == FREE
    assert model.backbone.training
    bare = tiny().backbone
    bare.norm = nn.Identity()
    with pytest.raises(UsageError, match="prune finds no channel to remove"):
        Prune(0.5, prunable(bare, SIZE))


@pytest.mark.parametrize(("share", "advanced"), [(0.0, 0.5), (0.3, 0.1), (0.5, 0.9), (0.6, 0.0)])
def test_the_plain_model_is_the_pruned_one(share: float, advanced: float) -> None:
    model = inverted().double()
    images = torch.randn(4, 3, *SIZE, dtype=torch.float64)
    names, modules = list(model.state_dict()), [str(module) for module in model.modules()]
    plain = model(images).logits
    method = Prune(share, FREE)
    method.attach(model)
    torch.testing.assert_close(model(images).logits, plain, rtol=0, atol=1e-10)
    step(method, model, 1.0)
    pruned = model(images).logits
    result = deployable(model, [method])
    torch.testing.assert_close(result(images).logits, pruned, rtol=0, atol=1e-10)
    assert list(result.state_dict()) == names
    assert [str(module) for module in result.modules()] == modules
    assert all(isinstance(value, nn.Parameter) for value in result.backbone.parameters())
    # On the way there, what will go is gone: any checkpoint has the share that was asked for.
    early = inverted()
    method.attach(early)
    step(method, early, advanced)
    left = [alive(deployable(early, [method]), group[0]) for group in FREE]
    assert sum(left) == CHANNELS - round(share * CHANNELS)


def test_a_group_keeps_its_largest_channel() -> None:
    model = inverted()
    method = Prune(0.9, FREE)
    method.attach(model)
    gates = [model.backbone.get_submodule(name) for name in FREE[1]]
    for gate in gates:
        gate.effect.copy_(torch.arange(14.0) * 1e-6)  # type: ignore[operator]
    for name in FREE[0]:
        model.backbone.get_submodule(name).effect.fill_(1.0)  # type: ignore[operator]
    method.advance(model, 1.0)
    plain = deployable(model, [method])
    for name in FREE[1]:
        assert plain.backbone.get_parameter(f"{name}.weight").nonzero().flatten().tolist() == [13]


def test_another_goes_for_a_largest_channel_that_stays() -> None:
    """So the share holds, however little a whole group matters."""
    model = inverted()
    method = Prune(0.5, FREE)
    method.attach(model)
    for name, effect in zip(itertools.chain(*FREE), (1e-9, 1e-9, 1.0, 1.0), strict=True):
        gate = model.backbone.get_submodule(name)
        gate.effect.copy_(effect * torch.arange(1.0, 1 + len(gate.effect)))  # type: ignore[arg-type, operator]
    method.advance(model, 1.0)
    plain = deployable(model, [method])
    assert [alive(plain, names[0]) for names in FREE] == [1, 14 - 3]


def test_what_goes_is_what_the_loss_needs_least_and_not_what_is_small() -> None:
    model = inverted()
    method = Prune(3 / CHANNELS, FREE)
    method.attach(model)
    for name in FREE[1]:
        gate = model.backbone.get_submodule(name)
        assert isinstance(gate, Gated)
        with torch.no_grad():
            gate.norm.get_parameter("weight")[4:7] = 50.0
            gate.norm.get_parameter("weight")[:4] = 1e-3
    for name in itertools.chain(*FREE):
        gate = model.backbone.get_submodule(name)
        for parameter in gate.norm.parameters():
            parameter.grad = torch.ones_like(parameter)
            if name in FREE[1]:
                parameter.grad[4:7] = 0
                parameter.grad[:4] = 1e6
    method.advance(model, 1.0)
    plain = deployable(model, [method])
    for name in FREE[1]:
        zero = (plain.backbone.get_parameter(f"{name}.weight") == 0).nonzero().flatten()
        assert zero.tolist() == [4, 5, 6]


def test_gates_close_softly_as_the_threshold_comes() -> None:
    model = inverted()
    method = Prune(0.5, FREE)
    method.attach(model)
    for name in itertools.chain(*FREE):
        gate = model.backbone.get_submodule(name)
        gate.effect.copy_(torch.arange(1.0, 1 + len(gate.effect)) ** 2)  # type: ignore[arg-type, operator]
    expand = model.backbone.get_submodule("expand_norm")
    assert isinstance(expand, Gated)
    thresholds = []
    for share in (0.25, 1 / 3, 1.0):
        method.advance(model, share)  # without gradients: sizes stay in proportion
        thresholds.append(float(expand.threshold))
    quarter, half, whole = thresholds
    assert half == pytest.approx(2 * quarter, rel=1e-4)
    assert whole == pytest.approx(4 * quarter, rel=1e-4)
    sizes = expand.effect.sqrt() / expand.effect.sqrt().max()
    left = (1 - (whole / (whole * sizes / sizes[5])) ** 4).clamp_min(0)
    torch.testing.assert_close(expand.left[:-1], left[:-1], rtol=1e-4, atol=1e-4)


def test_gradients_pass_a_closed_gate() -> None:
    model = inverted().train()
    method = Prune(0.5, FREE)
    method.attach(model)
    step(method, model, 1.0)
    model.zero_grad()
    model.backbone.features(torch.randn(4, 3, *SIZE), "pooled").square().sum().backward()
    gate = model.backbone.entry_norm
    assert isinstance(gate, Gated)
    closed = gate.left == 0
    gradient = gate.norm.get_parameter("weight").grad
    assert closed.any()
    assert gradient is not None
    assert (gradient[closed] != 0).all()


@given(steps=st.integers(1, 60), warmup=st.floats(0, 0.5))
def test_the_threshold_grows_with_what_has_been_learned(steps: int, warmup: float) -> None:
    rates = [learning_rate(0.3, step, steps, warmup) for step in range(steps)]
    threshold, learned = 0.0, 0.0
    for rate, share in zip(rates, shares_of_the_rest(steps, warmup), strict=True):
        threshold += share * (2.0 - threshold)
        learned += rate
        assert threshold == pytest.approx(2.0 * learned / sum(rates))


def test_the_graph_has_no_pruned_channel(tmp_path: Path) -> None:
    model = inverted()
    whole = export_onnx(model, card(model), tmp_path / "whole.onnx", tables=False)
    method = Prune(0.5, FREE)
    method.attach(model)
    step(method, model, 1.0)
    plain = deployable(model, [method])
    left = [alive(plain, group[0]) for group in FREE]
    path = tmp_path / "pruned.onnx"
    pruned = export_onnx(plain, card(plain), path, tables=False)
    assert (whole.zero_channels, whole.describe_zeros()) == (0, "")
    assert pruned.describe_zeros() == f"always zero, so removed: {pruned.zero_channels} channels"
    assert pruned.zero_channels == 2 * (CHANNELS - sum(left))
    shapes = {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    assert shapes["backbone.entry.weight"] == [left[0], 6, 1, 1]
    assert shapes["backbone.expand.weight"] == [left[1], left[0], 1, 1]
    assert shapes["backbone.depthwise.weight"] == [left[1], 1, 3, 3]
    assert shapes["backbone.last.weight"] == [16, left[0], 1, 1]
    assert pruned.bytes < whole.bytes
