"""Files that several tests look at; an export takes seconds."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from edgekit.export.exporter import export_onnx
from edgekit.export.report import ExportReport
from edgekit.model.checkpoint import load_checkpoint
from edgekit.model.vqsa import VQSA
from tests.export.models import CLASSES, card, real, tiny
from tests.model.authors import authors_file, authors_state


class Exported(NamedTuple):
    model: VQSA
    path: Path
    report: ExportReport


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = tiny(quantize="spatial")
    path = tmp_path_factory.mktemp("small") / "m.onnx"
    return Exported(model, path, export_onnx(model, card(model), path, source="ab" * 32))


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    size = (64, 64)
    model = real("efficientnet-lite0", size, quantize="spatial", distance="l2")
    path = tmp_path_factory.mktemp("lite0") / "m.onnx"
    return Exported(model, path, export_onnx(model, card(model, "efficientnet-lite0", size), path))


@pytest.fixture(scope="session")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The released layout: ResNet-50, pooled, D = 2048."""
    folder = tmp_path_factory.mktemp("authors")
    torch.save(authors_file(authors_state(n=64, classes=3)), folder / "best.pth")
    model, loaded, _ = load_checkpoint(folder / "best.pth", classes=CLASSES)
    path = folder / "m.onnx"
    return Exported(model, path, export_onnx(model, card(model, loaded.backbone, (64, 64)), path))
