"""Pruning: the share that was asked for, on the paper's schedule, out of the graph at the end."""

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.core.errors import UsageError
from edgekit.export.exporter import export_onnx
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.methods.base import deployable
from edgekit.training.methods.prune import Gated, Prune, prunable
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


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 0.9), advanced=st.floats(0, 1))
def test_the_plain_model_is_the_pruned_one(share: float, advanced: float) -> None:
    model = inverted().double()
    images = torch.randn(4, 3, *SIZE, dtype=torch.float64)
    names, modules = list(model.state_dict()), [str(module) for module in model.modules()]
    plain = model(images).logits
    method = Prune(share, FREE)
    method.attach(model)
    torch.testing.assert_close(model(images).logits, plain, rtol=0, atol=1e-10)
    method.advance(model, 1.0)
    pruned = model(images).logits
    result = deployable(model, [method])
    torch.testing.assert_close(result(images).logits, pruned, rtol=0, atol=1e-10)
    assert list(result.state_dict()) == names
    assert [str(module) for module in result.modules()] == modules
    assert all(isinstance(value, nn.Parameter) for value in result.backbone.parameters())
    # On the way there, what will go is gone: any checkpoint has the share that was asked for.
    early = inverted()
    method.attach(early)
    method.advance(early, advanced)
    left = [alive(deployable(early, [method]), group[0]) for group in FREE]
    assert sum(left) == CHANNELS - int(share * CHANNELS)  # no group would lose all of them here


def test_a_group_keeps_its_largest_channel() -> None:
    model = inverted()
    with torch.no_grad():
        for name in FREE[0]:
            getattr(model.backbone, name).weight.mul_(1e-3)
    method = Prune(0.9, FREE)
    method.attach(model)
    method.advance(model, 1.0)
    plain = deployable(model, [method]).backbone
    gates = [model.backbone.get_submodule(name) for name in FREE[0]]
    sizes = torch.stack([gate.get_parameter("norm.weight") for gate in gates]).square().sum(0)
    for name in FREE[0]:
        left = plain.get_parameter(f"{name}.weight").nonzero().flatten().tolist()
        assert left == [int(sizes.argmax())]


def test_gradients_pass_a_closed_gate() -> None:
    model = inverted().train()
    method = Prune(0.5, FREE)
    method.attach(model)
    method.advance(model, 1.0)
    model(torch.randn(4, 3, *SIZE)).logits.square().sum().backward()
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
    method.advance(model, 1.0)
    plain = deployable(model, [method])
    left = [alive(plain, group[0]) for group in FREE]
    path = tmp_path / "pruned.onnx"
    pruned = export_onnx(plain, card(plain), path, tables=False)
    assert whole.zero_channels == 0
    assert pruned.zero_channels == 2 * (CHANNELS - sum(left))
    shapes = {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    assert shapes["backbone.entry.weight"] == [left[0], 6, 1, 1]
    assert shapes["backbone.expand.weight"] == [left[1], left[0], 1, 1]
    assert shapes["backbone.depthwise.weight"] == [left[1], 1, 3, 3]
    assert shapes["backbone.last.weight"] == [16, left[0], 1, 1]
    assert pruned.bytes < whole.bytes
