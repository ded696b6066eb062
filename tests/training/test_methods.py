"""Training methods: exact when they vanish, part of everything that training guarantees."""

import copy
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.core.errors import EdgekitError, Interrupted, UsageError
from edgekit.core.progress import ProgressBar
from edgekit.model.backbones.base import Backbone
from edgekit.model.backbones.efficientnet_lite import SamePadConv2d
from edgekit.model.backbones.registry import BACKBONES
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from edgekit.training.config import TrainConfig
from edgekit.training.losses import Learner
from edgekit.training.methods.base import deployable
from edgekit.training.methods.denoise import NOISE, SHARE, Denoise, Denoised
from edgekit.training.methods.preserve import Preserve
from edgekit.training.run import run_training
from tests.export.models import TinyBackbone, card, tiny
from tests.training.test_run import assert_same, log_of, weights
from tests.training.training_data import QUIET, frozen_config

ALL = {"preserve": 0.5, "denoise": 2.0, "prune": 0.4}


class Assorted(Backbone):
    """A layer of every kind, and some that cannot have a denoising layer behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadConv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, 1, 1, groups=24)
        self.grouped = nn.Conv2d(24, 12, 3, 2, 1, groups=2, bias=False)
        self.again = nn.Conv2d(12, 12, 1)
        self.mixed = nn.Linear(12, 12)
        self.channels = 12

    def forward(self, images: Tensor) -> Tensor:
        x = self.depthwise(self.wide(self.norm(self.stem(images)).relu()))
        x = self.again(self.again(self.grouped(x)).relu())  # one layer in two places
        y: Tensor = self.mixed(x.movedim(1, -1)).movedim(-1, 1)
        return y


def assorted() -> VQSA:
    torch.manual_seed(0)
    return VQSA(Assorted(), 3, VQSAConfig(codebook_size=4))


@torch.no_grad()
def learned(model: VQSA) -> list[str]:
    """Give every denoising layer some D; their names."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, Denoised)]
    for _, layer in layers:
        layer.scaled.normal_(std=0.3)
    return [name.removeprefix("backbone.") for name, _ in layers]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 8, 3, 2, 1), (2, 6, 9, 7)),
        (nn.Conv2d(6, 8, 3, 2, 1, bias=False), (2, 6, 9, 7)),
        (nn.Conv2d(6, 8, (3, 1), (1, 2), dilation=2, groups=2), (2, 6, 9, 7)),
        (nn.Conv2d(8, 8, 1, groups=4, bias=False, padding_mode="circular"), (2, 8, 4, 4)),
        (SamePadConv2d(6, 8, 3, 2, 2), (2, 6, 9, 8)),
        (nn.Linear(8, 6), (2, 5, 8)),
        (nn.Linear(8, 6, bias=False), (2, 8)),
    ],
)
def test_fused_is_unfused(layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    denoised = Denoised(copy.deepcopy(layer).double())
    x = torch.randn(shape, dtype=torch.float64)
    plain = denoised.layer(x)
    assert torch.equal(denoised(x), plain)  # D starts at zero
    with torch.no_grad():
        denoised.scaled.normal_(std=0.3)
        # y - cDy once more, with D as the one matrix [C, C] that its blocks stand for.
        full = torch.block_diag(*denoised.matrix.unflatten(0, (denoised.groups, -1)))
        channel = 1 if isinstance(layer, nn.Conv2d) else -1
        y = plain.movedim(channel, -1)
        expected = (y - SHARE * y @ full.T).movedim(-1, channel)
        unfused = denoised(x)
        fused = denoised.fused()
    torch.testing.assert_close(unfused, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-10)
    assert (expected - plain).abs().max() > 0.01
    assert (fused.bias is None) == (layer.bias is None)


def test_a_whole_network_is_as_it_was_before_and_after() -> None:
    model, images = assorted().double(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    names, modules = list(model.state_dict()), [str(module) for module in model.modules()]
    model.train()(images)  # batch norm has seen something
    plain = model.eval()(images).logits
    method = Denoise(1.0, model, pairs=True)
    method.attach(model)
    assert torch.equal(model(images).logits, plain)
    assert learned(model) == ["stem", "grouped", "again", "mixed"]
    unfused = model(images).logits
    assert (unfused - plain).abs().max() > 1e-3
    fused = deployable(model, [method])
    assert learned(model)  # which is left as it was
    torch.testing.assert_close(fused(images).logits, unfused, rtol=0, atol=1e-10)
    assert list(fused.state_dict()) == names
    assert [str(module) for module in fused.modules()] == modules
    assert fused.backbone.again.weight.shape == (12, 12, 1, 1)


@pytest.mark.parametrize("pairs", [False, True])
def test_the_mean_over_added_noise_needs_no_draw(pairs: bool) -> None:
    torch.manual_seed(0)
    layer = Denoised(nn.Conv2d(4, 6, 1, groups=2))
    with torch.no_grad():
        layer.scaled.normal_(std=0.3)
    outputs = torch.randn(4, 3, 6) * torch.tensor([1.0, 5.0, 1.0, 0.2])[:, None, None]
    reference = outputs[::2].repeat_interleave(2, 0) if pairs else outputs
    y = (outputs / reference.square().mean((1, 2), keepdim=True).sqrt()).double()
    change = torch.zeros_like(y)
    if pairs:
        change[1::2] = y[1::2] - y[::2]
    full = torch.block_diag(*layer.matrix.detach().double().unflatten(0, (2, -1)))
    noise = NOISE * torch.randn(4000, *y.shape, dtype=torch.float64)
    drawn = ((y + noise) @ full.T - (change + noise)).square().mean()
    assert layer.term(outputs, pairs).item() == pytest.approx(float(drawn), rel=0.01)


@pytest.mark.parametrize("pairs", [False, True])
def test_what_a_layer_learns_is_the_best_linear_prediction_of_noise(pairs: bool) -> None:
    """D = (E dy' + NOISE^2 I) (E yy' + NOISE^2 I)^-1, in each block."""
    torch.manual_seed(0)
    layer = Denoised(nn.Conv2d(4, 6, 1, groups=2).double())
    outputs = torch.randn(8, 5, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    if pairs:  # of each pair the mean square is that of the clean image
        outputs[1::2] = outputs[::2] + torch.randn(4, 5, 6, dtype=torch.float64)
    clean = outputs[::2].repeat_interleave(2, 0) if pairs else outputs
    y = outputs / clean.square().mean((1, 2), keepdim=True).sqrt()
    change = (y - y[::2].repeat_interleave(2, 0)) if pairs else torch.zeros_like(y)
    added = NOISE**2 * torch.eye(3, dtype=torch.float64)
    best = []
    for own in (slice(0, 3), slice(3, 6)):
        vectors, changes = y[..., own].flatten(0, 1), change[..., own].flatten(0, 1)
        second, cross = vectors.T @ vectors, changes.T @ vectors
        best.append((cross / len(vectors) + added) @ (second / len(vectors) + added).inverse())
    start = layer.term(outputs, pairs)
    start.backward()
    assert layer.scaled.grad is not None
    assert layer.scaled.grad.abs().max() > 0.01
    with torch.no_grad():
        layer.scaled.copy_(torch.cat(best) / 3**0.5)
    layer.scaled.grad = None
    term = layer.term(outputs, pairs)
    term.backward()
    assert term < 0.9 * start
    torch.testing.assert_close(layer.scaled.grad, torch.zeros_like(layer.scaled))


def test_preserve_measures_corrupted_against_the_clean_feature_at_the_start() -> None:
    model = assorted().eval()
    method = Preserve(2.0, model)
    method.attach(model)
    images = torch.randn(4, 3, 16, 16)
    before = model.backbone.features(images, "pooled").detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    after = model.backbone.features(images, "pooled")
    ratios = [
        ((after[c] - before[k]).square().sum() / before[k].square().sum()).item()
        for k, c in ((0, 1), (2, 3))
    ]
    loss = method.loss(images, after)
    assert loss.item() == pytest.approx(2 * np.mean(ratios), rel=1e-5)
    loss.backward()
    assert model.backbone.mixed.weight.grad is not None
    assert not list(assorted().state_dict().keys() ^ deployable(model, [method]).state_dict())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Settings of a run in which a tiny backbone learns from its first epoch."""
    monkeypatch.setitem(BACKBONES, "tiny", TinyBackbone)
    model = tiny(output="none")
    save_checkpoint(tmp_path / "tiny.safetensors", model, card(model))
    return {
        **vars(frozen_config(tmp_path)),
        "backbone": "tiny",
        "weights": str(tmp_path / "tiny.safetensors"),
        "freeze": False,
        "cache": None,
        **ALL,
    }


def config(settings: dict[str, object], **changes: object) -> TrainConfig:
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def test_a_run_logs_every_term_and_leaves_a_plain_model(settings: dict[str, object]) -> None:
    first = run_training(config(settings), QUIET)
    epochs = [entry for entry in log_of(first.out) if entry["event"] == "epoch"]
    terms = ("classification", "codebook", "commitment", *ALL)
    for epoch in epochs:
        assert epoch["loss"] == pytest.approx(sum(epoch[term] for term in terms))
    assert epochs[-1]["denoise"] < epochs[0]["denoise"]
    assert weights(first.out).keys() == tiny(codebook_size=12).state_dict().keys()
    # What was validated is what was saved: judged again, from the file, it is the same.
    again = config(
        settings,
        out=first.out.parent / "again",
        weights=str(first.best),
        freeze=True,
        epochs=1,
        lr=1e-9,
        ema=0.0,
        preserve=0.0,
        denoise=0.0,
        prune=0.0,
    )
    assert run_training(again, QUIET).validation == first.validation
    plain = log_of(again.out)[-1]
    assert not ALL.keys() & plain.keys()
    assert load_checkpoint(first.best).card.backbone == "tiny"


def test_methods_act_after_the_backbone_was_frozen(settings: dict[str, object]) -> None:
    result = run_training(
        config(settings, freeze=True, epochs=1, finetune_epochs=1, precision="bf16"), QUIET
    )
    head, whole = (entry for entry in log_of(result.out) if entry["event"] == "epoch")
    assert not ALL.keys() & head.keys()
    assert whole.keys() > ALL.keys()
    assert weights(result.out).keys() == tiny(codebook_size=12).state_dict().keys()


def test_interrupted_and_resumed_is_bit_exact(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(config(settings, out=tmp_path / "whole"), QUIET)
    advance, calls = ProgressBar.advance, 0

    def advance_and_interrupt(bar: ProgressBar, count: int = 1, figures: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls == 5:  # noticed in the next step, within the second epoch
            signal.raise_signal(signal.SIGINT)
        advance(bar, count, figures)

    monkeypatch.setattr(ProgressBar, "advance", advance_and_interrupt)
    cut = config(settings, out=tmp_path / "cut")
    with pytest.raises(Interrupted):
        run_training(cut, QUIET)
    state = torch.load(cut.out / "state.pt", weights_only=True)
    assert state["model"]["backbone.conv1.scaled"].abs().max() > 0
    assert weights(cut.out).keys() == tiny(codebook_size=12).state_dict().keys()
    run_training(cut, QUIET)
    for name in ("last", "best"):
        assert_same(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    logs = [log_of(tmp_path / name) for name in ("whole", "cut")]
    for entry in (entry for log in logs for entry in log):
        entry.pop("seconds", None)
    assert logs[0] == logs[1]


def test_a_weight_is_part_of_the_run_and_of_nan_reports(settings: dict[str, object]) -> None:
    run_training(config(settings, epochs=1), QUIET)
    with pytest.raises(UsageError, match=r"denoise: 1\.0, was 2\.0"):
        run_training(config(settings, epochs=1, denoise=1.0), QUIET)
    broken = config(settings, epochs=1, preserve=float("inf"))
    with pytest.raises(EdgekitError, match=r"the loss became .* in epoch 1, batch 1 \(images"):
        run_training(broken, QUIET, restart=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preserve": -1.0}, "preserve must be at least 0"),
        ({"denoise": float("nan")}, "denoise must be at least 0"),
        ({"pairing": "sampled"}, "preserve compares .* set pairing to 'paired', or preserve to 0"),
        ({"weights": "none"}, "random weights: give --weights, or leave --preserve out"),
        (
            {"preserve": 0, "weights": "none"},
            "random weights: give --weights, or leave --prune out",
        ),
        ({"prune": 0.95}, r"prune must be 0 to 0\.9, not 0\.95"),
        ({"freeze": True}, "frozen: add --finetune-epochs, or --no-freeze"),
    ],
)
def test_what_a_method_needs(
    settings: dict[str, object], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_training(config(settings, **changes), QUIET)


def test_denoise_learns_without_pairs_and_refuses_what_it_does_not_fit() -> None:
    model = assorted()
    method = Denoise(1.0, model, pairs=False)
    method.attach(model)
    losses = Learner(model, 0.0, [method])(torch.randn(3, 3, 16, 16), torch.arange(3), True, False)
    assert losses.methods[0] == pytest.approx(NOISE**2)  # all of the noise is left by D = 0
    losses.total.backward()
    stem = model.backbone.get_submodule("stem")
    assert isinstance(stem, Denoised)
    assert stem.scaled.grad is not None
    model.zero_grad()
    images = torch.randn(3, 3, 16, 16)
    method.loss(images, model.backbone.features(images, "pooled")).backward()
    assert stem.scaled.grad.abs().max() > 0
    assert stem.layer.weight.grad is None  # only D learns from its term
    model.backbone.features(images, "pooled")
    with pytest.raises(UsageError, match="no dimension of images first"):
        method.loss(torch.zeros(2, 3, 16, 16), torch.zeros(2, 12))
    depthwise = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3))
    model.backbone = depthwise  # type: ignore[assignment]
    with pytest.raises(UsageError, match="no layer to stand behind"):
        Denoise(1.0, model, pairs=False)
