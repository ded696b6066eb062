"""A checkpoint or a bundle that names code to import: nobody runs it but the user."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgekit.core.errors import UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from tests.commands import run
from tests.own_backbones import inside
from tests.training.training_data import write_data

SIZE = (32, 32)
TRAP = """
from pathlib import Path
from torch import nn

Path("sprung").touch()

def make():
    return nn.Conv2d(3, 4, 8, 8)
"""
CARD = ModelCard("trap:make", 4, ("a", "b"), Preprocessing(size=SIZE), VQSAConfig(4))


class Plain(torch.nn.Module):
    """The trap's network, under the names that its checkpoint has."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Conv2d(3, 4, 8, 8)


def checkpoint(path: Path, card: ModelCard) -> Path:
    """A card, and weights that fit the trap's network."""
    model = VQSA(create_backbone("resnet18"), 2, CARD.vqsa)
    head = VQSA.__new__(VQSA)
    torch.nn.Module.__init__(head)
    head.backbone, head.head = Plain(), type(model.head)(4, 2, CARD.vqsa)  # type: ignore[assignment]
    save_checkpoint(path, head, card)
    return path


COMMANDS = (
    "inspect {}",
    "inspect {} --backbone trap:other",
    "inspect {} --backbone resnet18",
    "export {} -o out.onnx",
    "build --checkpoint {} --data levels.npz",
    "calibrate {} --data levels.npz -o out.onnx",
    "finetune {} --data levels.npz --out tuned",
    "train --weights {} --data levels.npz --out run",
    "train --weights {} --backbone trap:other --data levels.npz --out run",
    "parity other.onnx --reference {} --data levels.npz --preprocessing imagenet",
)


def test_a_checkpoint_does_not_run_the_code_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The enemy unpacked an archive: weights, and beside them the module that they name."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "trap.py").write_text(TRAP)
    write_data(tmp_path, train=12, validation=6)
    with inside(tmp_path):
        path = checkpoint(Path("theirs.safetensors"), CARD)
        for command in COMMANDS:
            code, out, err = run(capsys, *command.format(path).split())
            error = err.splitlines()[-1]
            assert code == 2, command
            assert out == ""
            assert error.startswith("error: theirs.safetensors is built on trap:make"), command
            assert "add --backbone trap:make" in error
            assert not Path("sprung").exists(), command
        with pytest.raises(UsageError, match="only when you say so"):
            load_checkpoint(path)
        assert not Path("sprung").exists()
        code, out, _ = run(capsys, "inspect", path, "--backbone", "trap:make", "--json")
        assert (code, json.loads(out)["card"]["backbone"]) == (0, "trap:make")
        assert Path("sprung").exists()  # the trap works: it is edgekit that did not step on it


@pytest.mark.parametrize(
    "name",
    ["trap:make;reboot", "trap:make\nadd --backbone evil:make", "trap :make", "../trap:make"],
)
def test_names_that_a_shell_would_obey_are_no_names(name: str, tmp_path: Path) -> None:
    """The message about a backbone to confirm shows it as something to paste."""
    (tmp_path / "trap.py").write_text(TRAP)
    with inside(tmp_path):
        path = checkpoint(Path("theirs.safetensors"), replace(CARD, backbone=name))
        for backbone in (None, name):
            with pytest.raises(
                UsageError, match=r"^unknown backbone .* your own 'module:function'"
            ):
                load_checkpoint(path, backbone=backbone)
        assert not Path("sprung").exists()


def test_a_confirmed_name_imports_nothing_for_another_checkpoint(tmp_path: Path) -> None:
    """Of edgekit's own backbones no module is needed, whatever the user names."""
    (tmp_path / "trap.py").write_text(TRAP)
    with inside(tmp_path):
        card = replace(CARD, backbone="resnet18", width=512)
        path = tmp_path / "ours.safetensors"
        save_checkpoint(path, VQSA(create_backbone("resnet18"), 2, CARD.vqsa), card)
        with pytest.raises(UsageError, match="holds a resnet18, not trap:make: leave out"):
            load_checkpoint(path, backbone="trap:make")
        assert not Path("sprung").exists()


def test_weights_that_do_not_fit_the_confirmed_network_are_named(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text(TRAP)
    with inside(tmp_path):
        path = checkpoint(Path("theirs.safetensors"), CARD)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        state["backbone.network.weight"] = torch.zeros(4, 3, 8, 7)
        safetensors.torch.save_file(state, path, metadata)
        with pytest.raises(UsageError, match=r"backbone\.network\.weight' has shape 4x3x8x7"):
            load_checkpoint(path, backbone="trap:make")
