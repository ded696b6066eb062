"""2:4 sparsity: the pattern, on the way there and at the end, in the graph and in its 8 bits."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.core.errors import UsageError
from edgekit.export.exporter import export_onnx
from edgekit.graph.two_of_four import is_two_of_four, two_of_four_layers
from edgekit.model.backbones.base import Backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig
from edgekit.training.methods.base import deployable
from edgekit.training.methods.two_of_four import Thinned, TwoOfFour
from tests.export.models import SIZE, card, spread, tiny

CHOSEN = ["shared", "wide", "mixed"]


class Small(Backbone):
    """Layers that can be thinned, one of them in two places, and layers that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 4, 1)
        self.shared = nn.Conv2d(8, 8, 3, 1, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.wide = nn.Conv2d(8, 6, 1, bias=False)
        self.odd = nn.Conv2d(6, 16, 1)
        self.mixed = nn.Linear(16, 16)
        self.channels = 16

    def forward(self, images: Tensor) -> Tensor:
        x = F.hardswish(self.shared(F.hardswish(self.shared(F.hardswish(self.stem(images))))))
        x = F.hardswish(self.odd(F.hardswish(self.wide(self.depthwise(x)))))
        features: Tensor = self.mixed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return features


def small() -> VQSA:
    torch.manual_seed(0)
    return spread(VQSA(Small(), 3, VQSAConfig(codebook_size=8)))


def weights(model: VQSA) -> dict[str, Tensor]:
    return {name: model.backbone.get_parameter(f"{name}.weight") for name in CHOSEN}


@pytest.mark.parametrize(("learned", "way"), [(0.0, 0.0), (0.15, 0.3), (0.5, 1.0), (0.8, 1.0)])
def test_the_plain_model_has_two_of_four_whenever_it_is_made(learned: float, way: float) -> None:
    model = small().double()
    images = torch.randn(4, 3, *SIZE, dtype=torch.float64)
    names, modules = list(model.state_dict()), [str(module) for module in model.modules()]
    before, whole = model(images).logits, {name: w.clone() for name, w in weights(model).items()}
    method = TwoOfFour(model)
    method.attach(model)
    assert sum(isinstance(module, Thinned) for module in model.backbone.modules()) == len(CHOSEN)
    torch.testing.assert_close(model(images).logits, before, rtol=0, atol=1e-10)
    method.advance(model, learned)
    thinned = model(images).logits
    plain = deployable(model, [method])
    assert list(plain.state_dict()) == names
    assert [str(module) for module in plain.modules()] == modules
    for name, weight in weights(plain).items():
        fours = weight.detach().unflatten(1, (-1, 4))
        assert ((fours != 0).sum(2) == 2).all()
        # Those stay that were the largest; the threshold takes from them what it takes.
        kept, largest = fours.abs(), whole[name].unflatten(1, (-1, 4)).abs()
        assert torch.equal(kept.argsort(2)[:, :, 2:], largest.argsort(2)[:, :, 2:])
        third = largest.sort(2).values[:, :, 1:2]
        expected = largest * (1 - (way * third / largest) ** 4)
        torch.testing.assert_close(kept, torch.where(kept > 0, expected, 0.0))
    if way == 1:  # it computed so already
        torch.testing.assert_close(plain(images).logits, thinned, rtol=0, atol=1e-10)


def test_all_weights_learn_until_the_end() -> None:
    """Gradients pass as if all were there, so what is thin may come back."""
    model = small()
    method = TwoOfFour(model)
    method.attach(model)
    method.advance(model, 1.0)
    model(torch.randn(4, 3, *SIZE)).logits.square().sum().backward()
    for module in model.backbone.modules():
        if isinstance(module, Thinned):
            assert module.layer.weight.grad is not None
            assert (module.layer.weight.grad != 0).float().mean() > 0.9


@given(st.integers(0, 1 << 32), st.sampled_from([(4, 8), (2, 4, 3, 3), (3, 12, 1, 1)]))
def test_ties_leave_no_more_than_two(seed: int, shape: tuple[int, ...]) -> None:
    layer = nn.Linear(1, 1)
    numbers = np.random.default_rng(seed).integers(-2, 3, shape)
    layer.weight = nn.Parameter(torch.from_numpy(numbers).double())
    thin = Thinned(layer)
    thin.rest.fill_(0.0)
    with torch.no_grad():
        expected = layer.weight * thin._left()
    plain = thin.plain().weight.detach()
    assert torch.equal(plain, expected)
    assert (plain.unflatten(1, (-1, 4)) != 0).sum(2).max() <= 2


def test_the_graph_and_its_8_bits_keep_the_pattern(tmp_path: Path) -> None:
    from edgekit.core.console import Console
    from edgekit.quantize.calibrate import calibrate
    from edgekit.quantize.qat.network import Network
    from edgekit.quantize.recipes import Recipe
    from edgekit.targets.dialects import find_dialect

    model = small()
    method = TwoOfFour(model)
    method.attach(model)
    thin = export_onnx(deployable(model, [method]), card(model), tmp_path / "thin.onnx")
    assert (thin.two_of_four, thin.describe_zeros()) == (4, "2:4 weights in 4 layers")
    graph = onnx.load(tmp_path / "thin.onnx")
    found = two_of_four_layers(graph)
    assert len(found) == 4  # `shared` is two of them
    images = np.random.default_rng(0).integers(0, 256, (24, *SIZE, 3), np.uint8)
    rounded, _ = calibrate(
        graph,
        images[:16],
        images[16:],
        card(model).preprocessing,
        Recipe(),
        find_dialect("tensorrt"),
        Console(verbosity=-1),
    )
    assert two_of_four_layers(rounded) == found
    # Fine-tuning moves what is left, as far as it likes.
    network = Network(rounded, graph)
    network(torch.randn(4, 3, *SIZE)).logits.square().sum().backward()
    with torch.no_grad():
        for values in network.parameters():
            if values.grad is not None:
                values.sub_(10 * values.grad.sign())
    learned = network.to_onnx()
    assert learned != rounded
    assert two_of_four_layers(learned) == found


def test_what_is_two_of_four() -> None:
    thin = np.zeros((2, 8, 1, 1), np.int8)
    assert not is_two_of_four(thin, 1)  # a layer of zeros is no sparse one
    thin[0, 2:6] = 1
    assert is_two_of_four(thin, 1)
    assert not is_two_of_four(thin, 0)
    assert not is_two_of_four(thin[:, :6], 1)
    thin[0, 6] = 1
    assert not is_two_of_four(thin, 1)


def test_what_cannot_be_thinned() -> None:
    model = tiny()
    model.backbone = nn.Sequential(nn.Conv2d(3, 8, 1))  # type: ignore[assignment]
    with pytest.raises(UsageError, match="two_of_four finds no layer in this backbone"):
        TwoOfFour(model)
    for other in ("denoise", "prune"):
        with pytest.raises(UsageError, match=f"^{other} moves weights between the fours"):
            TrainConfig(two_of_four=True, **{other: 0.5})  # type: ignore[arg-type]
