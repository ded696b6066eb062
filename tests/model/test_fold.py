"""The fold is exact algebra: in float64 nothing but rounding may differ."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.model.backbones.registry import create_backbone
from edgekit.model.config import VQSAConfig
from edgekit.model.fold import FOLDABLE, fold, fold_head
from edgekit.model.vqsa import VQSA, VQSAHead
from edgekit.native.codebook import Codebook


def make_head(width: int, config: VQSAConfig, seed: int, dtype: torch.dtype) -> VQSAHead:
    torch.manual_seed(seed)
    head = VQSAHead(width, 5, config)
    assert head.fuse is not None
    torch.nn.init.normal_(head.fuse.weight, std=width**-0.5)  # residual starts at zero
    torch.nn.init.normal_(head.fuse.bias)
    return head.to(dtype).eval()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-300))


def _config(options: dict[str, Any]) -> VQSAConfig:
    return VQSAConfig(**options)


heads = st.fixed_dictionaries(
    {
        "codebook_size": st.integers(1, 40),
        "quantize": st.sampled_from(["pooled", "spatial"]),
        "output": st.sampled_from(FOLDABLE),
        "distance": st.sampled_from(["cosine", "l2"]),
        "logit_scale": st.booleans(),
    }
).map(_config)


@settings(max_examples=200, deadline=None)
@given(
    config=heads,
    width=st.integers(1, 48),
    batch=st.integers(1, 5),
    positions=st.integers(1, 6),
    tables=st.booleans(),
    case=st.sampled_from(["random", "ties", "zero rows", "zero features", "all zero"]),
    seed=st.integers(0, 2**31),
)
def test_folded_equals_unfolded_in_float64(
    config: VQSAConfig,
    width: int,
    batch: int,
    positions: int,
    tables: bool,
    case: str,
    seed: int,
) -> None:
    head = make_head(width, config, seed, torch.float64)
    assert head.codebook is not None
    shape = (batch, positions, width) if config.quantize == "spatial" else (batch, width)
    features = torch.randn(shape, dtype=torch.float64).relu()
    with torch.no_grad():
        if case == "ties":  # every codeword twice
            half = head.codebook.embeddings[: (config.codebook_size + 1) // 2]
            head.codebook.embeddings.copy_(half.repeat(2, 1)[: config.codebook_size])
        if case in ("zero rows", "all zero"):
            head.codebook.embeddings[::2] = 0
        if case in ("zero features", "all zero"):
            features.zero_()
        before, after = head(features), fold_head(head, tables=tables)(features)
    assert torch.equal(before.code, after.code)
    assert torch.isfinite(after.logits).all()
    assert relative(before.logits, after.logits) <= 1e-10
    if case == "zero features" and config.distance == "cosine":
        assert int(after.code.max()) == 0  # every score is 0: the lowest index


def test_the_native_lookup_takes_the_folded_codebook_and_gives_ties_to_the_lowest() -> None:
    for distance in ("cosine", "l2"):
        head = make_head(24, VQSAConfig(codebook_size=30, distance=distance), 1, torch.float32)
        assert head.codebook is not None
        with torch.no_grad():
            head.codebook.embeddings[15:] = head.codebook.embeddings[:15]
            lookup = fold_head(head).lookup
            features = torch.randn(50, 24).relu()
            torch_code = lookup(features)[0] % 15
        with Codebook(lookup.codebook.numpy(), lookup.metric) as native:
            code = native.lookup(features.numpy()).indices
        assert code.max() < 15
        assert code.tolist() == torch_code.tolist()


@pytest.mark.parametrize("quantize", ["pooled", "spatial"])
@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("output", FOLDABLE)
@pytest.mark.parametrize("width", [64, 512])
def test_folded_equals_unfolded_in_float32(
    quantize: str, distance: str, output: str, width: int
) -> None:
    config = VQSAConfig(200, quantize, distance, output)  # type: ignore[arg-type]
    head = make_head(width, config, 3, torch.float32)
    shape = (16, 9, width) if quantize == "spatial" else (16, width)
    features = torch.randn(shape).relu()
    with torch.no_grad():
        before = head(features)
        for tables in (True, False):
            after = fold_head(head, tables=tables)(features)
            assert torch.equal(before.code, after.code)
            assert relative(before.logits, after.logits) <= 1e-4


def test_zero_rows_and_tiny_features_never_give_nan() -> None:
    head = make_head(8, VQSAConfig(codebook_size=4), 0, torch.float32)
    assert head.codebook is not None
    with torch.no_grad():
        head.codebook.embeddings[0] = 0
        head.codebook.embeddings[1] = 1e-42  # denormal: its square is zero
        head.codebook.embeddings[2] = 1e38  # its square overflows
        for scale in (0.0, 1e-42, 1.0):
            output = fold_head(head)(torch.full((1, 8), scale))
            assert torch.isfinite(output.logits[0] if scale else output.margin).all()
            assert 0 <= int(output.code) < 4


@pytest.mark.parametrize("output", ["none", "replace", "add", "concat"])
def test_other_output_forms_stay_as_they_are(output: str) -> None:
    config = VQSAConfig(codebook_size=8, output=output)  # type: ignore[arg-type]
    folded, report = fold(VQSA(create_backbone("resnet18"), 3, config))
    assert folded is None
    assert not report.folded
    assert f"'{output}' has no attention to fold: left as it is" in report.message


def test_whole_model() -> None:
    torch.manual_seed(0)
    model = VQSA(create_backbone("resnet18"), 3, VQSAConfig(codebook_size=8)).eval()
    folded, report = fold(model)
    assert folded is not None
    assert report.folded
    assert "5 x 512^2 head weights became 2.5 x 512^2" in report.message
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before, after = model(images), folded(images)
    assert torch.equal(before.code, after.code)
    assert relative(before.logits, after.logits) <= 1e-4
    # The deployable form does not carry the unfolded head along.
    assert not any("attention" in key for key in folded.state_dict())
