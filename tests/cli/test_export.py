import json
from pathlib import Path

import onnx
from click.testing import CliRunner

from edgekit.cli.export import export
from edgekit.core.errors import UsageError
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.checkpoint import save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from tests.export.models import card, spread


def test_export_command(tmp_path: Path) -> None:
    size = (32, 32)
    model = spread(VQSA(create_backbone("resnet18"), 3, VQSAConfig(codebook_size=8)), size)
    save_checkpoint(tmp_path / "best.safetensors", model, card(model, "resnet18", size))
    words = [str(tmp_path / "best.safetensors"), "-o", str(tmp_path / "m.onnx"), "--batch", "2"]
    done = CliRunner().invoke(export, [*words, "--vq", "inline", "--no-margin", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)  # nothing else is on stdout
    assert document["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert document["agreement"]["code_ties"] == 0
    assert (document["batch"], document["vq"]) == (2, "inline")
    assert "logits equal torch's" in done.stderr
    graph = onnx.load(tmp_path / "m.onnx")
    assert [output.name for output in graph.graph.output] == ["logits", "code"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_mistakes() -> None:
    done = CliRunner().invoke(export, ["best.pth", "--batch", "two"])
    assert done.exit_code == 2
    assert "'two' is neither 'dynamic' nor a batch size" in done.output
    done = CliRunner().invoke(export, ["absent.pth"])
    assert isinstance(done.exception, UsageError)
    assert "cannot read checkpoint absent.pth" in str(done.exception)
