import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import BACKBONES, create_backbone
from edgekit.model.backbones.timm import TimmBackbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.codebook import Codebook, normalize_rows, perplexity
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA, VQSAHead
from edgekit.native.codebook import lookup_reference
from edgekit.training.config import TrainConfig
from edgekit.training.initial_weights import starting_point

# Looked up, not imported: importing timm without edgekit's help may fail in torchvision.
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="the [timm] extra is not installed"
)
OUTPUTS = ("none", "replace", "add", "concat", "attention", "residual")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def codebook(
    update: str = "gradient", size: int = 8, width: int = 4, **options: object
) -> Codebook:
    return Codebook(width, VQSAConfig(codebook_size=size, update=update, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("quantize", ["pooled", "spatial"])
def test_shapes_and_gradients(output: str, quantize: str) -> None:
    config = VQSAConfig(codebook_size=6, output=output, quantize=quantize)  # type: ignore[arg-type]
    model = VQSA(create_backbone("resnet18"), 3, config).train()
    result = model(torch.randn(2, 3, 64, 64))
    assert result.logits.shape == (2, 3)
    if output == "none":
        assert result.code is None
    else:
        shape = (2,) if quantize == "pooled" else (2, 4)
        assert result.code.shape == result.margin.shape == shape
        assert result.code.dtype == torch.int64
        assert (result.margin >= 0).all()
    (result.logits.sum() + result.codebook_loss + result.commitment_loss).backward()
    grad = next(model.backbone.parameters()).grad
    assert grad is not None
    assert torch.isfinite(grad).all()
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("output", ["attention", "residual"])
@pytest.mark.parametrize("straight_through", [True, False])
def test_features_that_do_not_learn_change_no_gradient(output: str, straight_through: bool) -> None:
    """Then each codeword is multiplied once, which is the same sum in another order."""
    config = VQSAConfig(codebook_size=4, output=output, straight_through=straight_through)  # type: ignore[arg-type]
    head = VQSAHead(8, 3, config).double().train()
    torch.nn.init.normal_(head.fuse.weight)
    features, found = torch.rand(32, 8, dtype=torch.float64), []
    for learn in (False, True):
        head.zero_grad()
        result = head(features.clone().requires_grad_(learn))
        (result.logits.square().sum() + result.codebook_loss + result.commitment_loss).backward()
        gradients = {name: p.grad.clone() for name, p in head.named_parameters()}
        found.append({"logits": result.logits.detach(), **gradients})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], msg=name)


def test_residual_starts_as_the_plain_classifier() -> None:
    head = VQSAHead(16, 3, VQSAConfig(codebook_size=5, output="residual")).eval()
    features = torch.randn(4, 16)
    assert torch.equal(head(features).logits, head.classifier(features))


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_lookup_agrees_with_the_float64_reference(distance: str) -> None:
    book = codebook(size=50, width=24, distance=distance).eval()
    features = torch.randn(64, 24).relu()
    stored = book.embeddings.detach()
    rows = normalize_rows(stored) if distance == "cosine" else stored
    metric = "dot" if distance == "cosine" else "l2"
    expected = lookup_reference(rows.numpy(), features.numpy(), metric)
    found = book(features)
    assert np.array_equal(found.code.numpy(), expected.indices)
    assert np.allclose(found.margin.numpy(), expected.margin, atol=1e-4)
    # The codeword is the stored row, not the normalized one.
    assert torch.equal(found.codeword, stored[found.code])


def test_losses_are_the_papers() -> None:
    book = codebook(commitment=0.25).train()
    features = torch.randn(5, 4, requires_grad=True)
    found = book(features)
    distance = (book.embeddings[found.code] - features).square().mean().item()
    assert math.isclose(found.codebook_loss.item(), distance, rel_tol=1e-5)
    assert math.isclose(found.commitment_loss.item(), 0.25 * distance, rel_tol=1e-5)
    (gradient,) = torch.autograd.grad(found.codebook_loss, features, allow_unused=True)
    assert gradient is None  # the codebook loss moves codewords only
    (gradient,) = torch.autograd.grad(
        found.commitment_loss, book.embeddings, allow_unused=True, retain_graph=True
    )
    assert gradient is None  # the commitment loss moves features only


def test_straight_through_passes_gradients_around_the_lookup() -> None:
    features = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(5, 4)
    through = codebook(straight_through=True).train()
    (gradient,) = torch.autograd.grad((through(features).codeword * weight).sum(), features)
    assert torch.equal(gradient, weight)
    stopped = codebook(straight_through=False).train()
    codeword = stopped(features).codeword
    (gradient,) = torch.autograd.grad((codeword * weight).sum(), features, allow_unused=True)
    assert gradient is None


def test_ema_moves_codewords_to_their_features() -> None:
    book = codebook("ema", size=2, width=2, ema_decay=0.5, distance="l2").train()
    book.embeddings.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0]]))
    book.ema_sum.copy_(book.embeddings)
    features = torch.tensor([[1.0, 1.0], [1.0, 2.0]])
    for _ in range(60):
        assert book(features).codebook_loss == 0
    assert torch.allclose(book.embeddings[0], torch.tensor([1.0, 1.5]), atol=1e-4)
    # Nobody chose the second: it stays where it was, however long that lasts.
    assert torch.allclose(book.embeddings[1], torch.tensor([10.0, 10.0]), atol=1e-3)
    assert not list(book.parameters())


def test_kmeans_and_dead_code_reset() -> None:
    centers = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
    features = centers.repeat(50, 1) + 0.1 * torch.randn(200, 2)
    book = codebook(size=4, width=2, distance="l2").train()
    book.initialize(features, iterations=20, seed=3)
    nearest = torch.cdist(centers, book.embeddings.detach()).min(dim=1).values
    assert (nearest < 0.2).all()

    book.reset_usage()
    book(features[:1])
    used = int(book.usage.argmax())
    kept = book.embeddings[used].clone()
    assert book.reset_dead(features) == 3
    assert torch.equal(book.embeddings[used], kept)
    distance = (book.embeddings.detach()[:, None] - features).abs().amax(dim=2).min(dim=1).values
    assert (distance[torch.arange(4) != used] == 0).all()


def test_more_codewords_than_features() -> None:
    book = codebook(size=10, width=3)
    book.initialize(torch.randn(4, 3))
    assert torch.isfinite(book.embeddings).all()


def test_usage_and_perplexity() -> None:
    assert perplexity(torch.tensor([0, 0])) == 0
    assert math.isclose(perplexity(torch.tensor([5, 5, 5, 5])), 4)
    assert math.isclose(perplexity(torch.tensor([9, 0, 0])), 1)
    book = codebook().train()
    book(torch.randn(20, 4))
    book(torch.randn(3, 4))
    assert int(book.usage.sum()) == 23
    book.eval()
    book(torch.randn(3, 4))
    assert int(book.usage.sum()) == 23
    book.reset_usage()
    assert book.perplexity() == 0


def test_normalize_rows_at_the_edges_of_float32() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-42, 0.0], [2e38, 2e38]])
    unit = normalize_rows(rows)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0], [0.5**0.5, 0.5**0.5]])
    assert torch.allclose(unit, expected)


def test_logit_scale_divides_by_sqrt_2() -> None:
    tokens = torch.randn(3, 2, 16)
    plain = VQSAHead(16, 3, VQSAConfig(codebook_size=5)).attention
    scaled = VQSAHead(16, 3, VQSAConfig(codebook_size=5, logit_scale=True)).attention
    assert plain is not None
    assert scaled is not None
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        scaled.query.mul_(2**0.5)
    assert torch.allclose(plain(tokens), scaled(tokens), atol=1e-5)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_backbones_find_their_width(name: str) -> None:
    backbone = create_backbone(name).eval()
    images = torch.randn(1, 3, 65, 97)  # odd and oblong on purpose
    with torch.no_grad():
        pooled, vectors = backbone.pooled(images), backbone.vectors(images)
    assert pooled.shape == (1, backbone.width("pooled"))
    assert vectors.shape == (1, 3 * 4, backbone.width("spatial"))
    assert torch.allclose(vectors.mean(dim=1), pooled, atol=1e-5)


@needs_timm
@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("convmixer_768_32", 1024),
        ("swin_tiny_patch4_window7_224", 49),
        ("vit_tiny_patch16_224", 196),
        ("mobilenetv3_small_100", 49),
    ],
)
def test_timm_backbones(name: str, positions: int) -> None:
    backbone = create_backbone(f"timm:{name}").eval()
    images = torch.randn(1, 3, *cast(TimmBackbone, backbone).input_size)
    with torch.no_grad():
        pooled, vectors = backbone.pooled(images), backbone.vectors(images)
    assert pooled.shape == (1, backbone.width("pooled"))
    assert vectors.shape == (1, positions, backbone.width("spatial"))


@needs_timm
@pytest.mark.parametrize(
    ("name", "positions"), [("vit_tiny_patch16_224", 4 * 6), ("mobilenetv3_small_100", 2 * 3)]
)
def test_timm_backbones_for_other_sizes(name: str, positions: int, tmp_path: Path) -> None:
    """Also those with a position embedding; a checkpoint brings the size that it was made for."""
    size = (64, 96)
    model = VQSA(create_backbone(f"timm:{name}", size), 3, VQSAConfig(codebook_size=4)).eval()
    card = ModelCard(f"timm:{name}", model.head.width, ("a", "b", "c"), Preprocessing(size=size))
    card = dataclasses.replace(card, vqsa=model.config)
    save_checkpoint(tmp_path / "model.safetensors", model, card)
    loaded = load_checkpoint(tmp_path / "model.safetensors").model
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert loaded.backbone.vectors(images).shape[1] == positions
        assert torch.equal(loaded(images).logits, model(images).logits)


@needs_timm
def test_trained_weights_for_another_size(tmp_path: Path) -> None:
    """Of training's start: its result could not be loaded, as it kept the embeddings of 160 px."""
    there = cast(TimmBackbone, create_backbone("timm:test_vit"))
    torch.save(there.model.state_dict(), tmp_path / "vit.pth")
    config = TrainConfig(
        data="x", out=tmp_path, backbone="timm:test_vit", weights=str(tmp_path / "vit.pth"),
        image_size=64,
    )  # fmt: skip
    here = cast(TimmBackbone, starting_point(config, Console(verbosity=-1)).backbone)
    assert (here.input_size, there.input_size) == ((64, 64), (160, 160))
    fresh = create_backbone("timm:test_vit", (64, 64))
    fresh.load_state_dict(here.state_dict())  # as a checkpoint is loaded
    kept = "model.blocks.0.attn.qkv.weight"
    assert torch.equal(here.state_dict()[kept], there.state_dict()[kept])
    assert here.at_size((64, 64)) is here
    torch.save(here.model.state_dict(), tmp_path / "vit.pth")  # of a model for this size
    again = cast(TimmBackbone, starting_point(config, Console(verbosity=-1)).backbone)
    assert torch.equal(again.model.pos_embed, here.model.pos_embed)
    with pytest.raises(UsageError, match=r"does not take images of 100 x 100: .*divisible"):
        there.at_size((100, 100))
    convolutions = cast(TimmBackbone, create_backbone("timm:test_convnext"))
    assert convolutions.at_size((64, 64)) is convolutions


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", r"unknown backbone 'resnet5' \(did you mean 'resnet50'\?\)"),
        pytest.param("timm:resnext999", "timm has no model 'resnext999'", marks=needs_timm),
    ],
)
def test_unknown_backbone(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_backbone(name)


def test_autocast_keeps_the_lookup_in_float32() -> None:
    head = VQSAHead(64, 3, VQSAConfig(codebook_size=40)).eval()
    features = torch.randn(32, 64)
    with torch.no_grad():
        full = head(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = head(features)
    assert torch.equal(full.code, mixed.code)
    assert mixed.margin.dtype == torch.float32
