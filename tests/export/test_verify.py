"""What the proof behind an export allows: float32's own rounding, and nothing beyond."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import edgekit.export.exporter as export_module
from edgekit.core.errors import EdgekitError
from edgekit.export.exporter import export_onnx
from edgekit.export.verify import CODE_TOLERANCE, _Float64Answers, _run_torch, random_photos
from edgekit.graph.lookup import LookupSpec, lookup_function
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from tests.export.models import CLASSES, SIZE, TinyBackbone, card


class Balanced(TinyBackbone):
    """Features whose values add up to nothing, so that scores of positive codewords cancel."""

    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features - features.mean(dim=1, keepdim=True)


def cancelling() -> VQSA:
    """A model as random weights make it: its scores are tiny beside what they are sums of."""
    torch.manual_seed(3)
    model = VQSA(Balanced(), len(CLASSES), VQSAConfig(codebook_size=20)).eval()
    assert model.head.codebook is not None
    with torch.no_grad():
        rows = model.head.codebook.embeddings
        rows.copy_(1 + 1e-4 * torch.randn(rows.shape))
    return model


def test_it_shows_what_it_should() -> None:
    """The model's own float32 is off its float64 by more than the usual tolerance."""
    model = cancelling()
    photos = random_photos(np.random.default_rng(0), 8, SIZE)
    pixels = card(model).preprocessing.normalize(photos)
    single, double = _run_torch(model, pixels), _Float64Answers(model, pixels).answers()
    assert single.margin is not None
    assert double.margin is not None
    assert double.best is not None
    error = np.abs(single.margin - double.margin) / np.abs(double.best)
    assert error.max() > CODE_TOLERANCE


def test_the_models_own_rounding_is_allowed(tmp_path: Path) -> None:
    model = cancelling()
    report = export_onnx(model, card(model), tmp_path / "m.onnx")
    assert report.agreement.codes > 0


@pytest.mark.parametrize("share", [-1.0, 1.3])
def test_a_wrong_margin_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """A body that gives ``share`` of the margin."""

    def wrong(form: LookupSpec, opset: int) -> onnx.FunctionProto:
        body = lookup_function(form, opset)
        (subtract,) = [node for node in body.node if "margin" in node.output]
        subtract.output[:] = ["true_margin"]
        constant = onnx.helper.make_node("Constant", [], ["share"], value_float=share)
        scale = onnx.helper.make_node("Mul", ["true_margin", "share"], ["margin"])
        body.node.extend([constant, scale])
        return body

    model = cancelling()
    monkeypatch.setattr(export_module, "lookup_function", wrong)
    with pytest.raises(EdgekitError, match="margins differ from torch's by") as caught:
        export_onnx(model, card(model), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
