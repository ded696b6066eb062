"""Backbones by import path: what their feature is, and one line for all that cannot be one."""

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from edgekit.core.errors import TheirCodeError, UsageError
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.import_path import current_folder_first, is_import_path, source_digest
from edgekit.model.backbones.imported import ImportedBackbone
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from tests.commands import run
from tests.own_backbones import inside, write_package

SIZE = (32, 32)
BEGINNING = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4)
        self.fc = nn.Linear(6, 3)
"""
Write = Callable[[str], str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("own")
    with inside(path):
        yield path


@pytest.fixture
def write(folder: Path, request: pytest.FixtureRequest) -> Write:
    """A module with what follows `BEGINNING`; returns its name."""

    def write_module(text: str) -> str:
        name = f"own_{len(list(folder.iterdir()))}"
        (folder / f"{name}.py").write_text(BEGINNING + text)
        return name

    return write_module


def returning(expression: str, *, method: str = "forward") -> str:
    lines = (
        f"def {method}(self, images):",
        "    x = self.conv(images)",
        f"    return {expression}",
    )
    return "".join(f"    {line}\n" for line in lines)


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        ImportedBackbone(name, SIZE)
    text = str(caught.value)
    assert text.startswith(name)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("expression", "form", "width", "positions"),
    [
        ("x", "map", 6, 64),
        ("F.adaptive_avg_pool2d(x, 1)", "map", 6, 1),
        ("x.flatten(2).transpose(1, 2)", "tokens", 6, 64),
        ("x.mean((2, 3))", "vector", 6, None),
        ("x.flatten(1)", "vector", 384, None),
    ],
)
def test_the_feature_is_found_by_running(
    expression: str, form: str, width: int, positions: int | None, write: Write
) -> None:
    backbone = create_backbone(f"{write(returning(expression))}:Net", SIZE).eval()
    assert isinstance(backbone, ImportedBackbone)
    assert (backbone.layout.form, backbone.width("pooled")) == (form, width)
    images = torch.randn(3, 3, *SIZE)
    pooled = backbone.features(images, "pooled")
    assert pooled.shape == (3, width)
    if positions is None:
        with pytest.raises(UsageError, match="no positions: use --quantize pooled"):
            backbone.width("spatial")
        return
    vectors = backbone.features(images, "spatial")
    assert vectors.shape == (3, positions, width)
    torch.testing.assert_close(vectors.mean(1), pooled)
    if expression == "x":  # row by row
        row = backbone.network.conv(images)[0, :, 2, 5]  # type: ignore[operator]
        torch.testing.assert_close(vectors[0, 2 * 8 + 5], row)


def test_forward_features_comes_before_a_classifier(write: Write) -> None:
    text = returning("x", method="forward_features") + returning("self.fc(x.mean((2, 3)))")
    assert ImportedBackbone(f"{write(text)}:Net", SIZE).layout.form == "map"


def test_class_tokens_are_no_positions(write: Write) -> None:
    text = "    num_prefix_tokens = 1\n" + returning(
        "torch.cat([torch.full((len(x), 1, 6), 9.0), x.flatten(2).transpose(1, 2)], 1)"
    )
    backbone = ImportedBackbone(f"{write(text)}:Net", SIZE).eval()
    vectors = backbone.vectors(torch.randn(2, 3, *SIZE))
    assert vectors.shape == (2, 64, 6)
    assert float(vectors.detach().max()) < 9


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (returning("(x, x)"), "returns a tuple, not one tensor: return a float32 map"),
        (returning("{'x': x}"), "returns a dict, not one tensor"),
        (returning("x.flatten()"), "returns float32 [768] for images [2, 3, 32, 32]"),
        (returning("x[None]"), "returns float32 [1, 2, 6, 8, 8]"),
        (returning("x[:1]"), "returns float32 [1, 6, 8, 8]"),
        (returning("x.double()"), "returns float64 [2, 6, 8, 8]"),
        (returning("x / 0"), "returns NaN or infinite values"),
        (returning("x.permute(0, 2, 3, 1)"), "looks like [B, H, W, C]: return [B, C, H, W]"),
        (returning("x.flatten(2)"), "return tokens [B, P, C], such as feature.transpose(1, 2)"),
        (
            returning("torch.cat([x.flatten(2).transpose(1, 2), torch.ones(len(x), 1, 6)], 1)"),
            "65 tokens are no square of positions",
        ),
        (
            "    num_prefix_tokens = 64\n" + returning("x.flatten(2).transpose(1, 2)"),
            "num_prefix_tokens is 64: make it an integer from 0 to 63",
        ),
        (returning("F.dropout(x, 0.5)"), "returns other values each time in evaluation mode"),
        (returning("x - x.mean(0)"), "other values for an image alone than in a batch of two"),
        (returning("self.fc(x.mean((2, 3)))"), "from its layer 'fc', which may be a classifier"),
        (
            returning("x", method="forward_features").replace(
                "(self, images)", "(self, images, n)"
            ),
            "running its network on images [2, 3, 32, 32] failed with TypeError",
        ),
        ("    forward_features = 3\n", "its forward_features is no method"),
        (
            returning("F.conv2d(images, torch.ones(1, 1, 2, 2))"),
            "running its network on images [2, 3, 32, 32] failed with RuntimeError: Given groups=1",
        ),
    ],
)
def test_ambiguous_features_are_refused_in_a_line(body: str, says: str, write: Write) -> None:
    assert says in refusal(f"{write(body)}:Net")


def test_channels_last_are_refused_where_only_one_size_works(write: Write) -> None:
    body = returning("self.table + x.permute(0, 2, 3, 1)")
    name = write(
        body
        + "\ndef make():\n    net = Net()\n    net.table = torch.ones(8, 8, 6)\n    return net\n"
    )
    assert "looks like [B, H, W, C]" in refusal(f"{name}:make")


AROUND = (
    returning("x")
    + """
class Wide(Net):
    def __init__(self, width):
        super().__init__()

net = Net()
number = 3
def text(): return "x"
def fails(): raise ValueError("no weights at\\n/data/w.pth")
def exits(): raise SystemExit(3)
def half(): return Net().half()
def complex():
    net = Net()
    net.register_buffer("waves", torch.ones(2, dtype=torch.complex64))
    return net
"""
)


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ("nett", "has no 'nett' (did you mean 'net'?)"),
        ("Net.other", "'s Net ("),
        ("net", "is a network itself, which two models would share"),
        ("number", "is a int: name a function"),
        ("text", "returned a str, not a torch.nn.Module"),
        ("Wide", "needs arguments (width)"),
        ("fails", "making the network failed with ValueError: no weights at /data/w.pth"),
        ("exits", "making the network failed with SystemExit: 3"),
        ("half", "running its network on images"),
        ("complex", "its network's 'waves' holds complex64 values"),
    ],
)
def test_what_makes_no_network_is_refused_in_a_line(
    attribute: str, says: str, write: Write
) -> None:
    assert says in refusal(f"{write(AROUND)}:{attribute}")


def test_import_failures_say_whose_they_are(write: Write) -> None:
    assert "there is no module own_absent: run edgekit in the folder" in refusal("own_absent:make")
    missing = refusal(f"{write('import not_a_library')}:make")
    assert "failed with ModuleNotFoundError: No module named 'not_a_library'" in missing
    assert "failed with SyntaxError" in refusal(f"{write('def :')}:make")
    with pytest.raises(TheirCodeError) as caught:
        ImportedBackbone(f"{write('1 / 0')}:make", SIZE)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)  # for --verbose


def test_only_verbose_shows_where_it_failed(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--data", "none.npz", "--backbone", f"{write(AROUND)}:fails")
    for more, lines in ((("-v",), 1), ((), 0)):
        code, out, err = run(capsys, *words, "--out", tmp_path / "run", *more)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("error: own_")
        assert err.count("raise ValueError") == err.count("Traceback") == lines
    assert not (tmp_path / "run").exists()


def test_a_network_that_its_weights_do_not_determine_is_refused(write: Write) -> None:
    body = returning("x * self.scale") + "\ndef make():\n    net = Net()\n"
    drawn = "    net.scale = torch.rand(1)\n    return net\n"
    kept = "    net.register_buffer('scale', torch.rand(1))\n    return net\n"
    with pytest.raises(UsageError, match="makes another network each time"):
        ImportedBackbone(f"{write(body + drawn)}:make", SIZE).check_repeatable()
    ImportedBackbone(f"{write(body + kept)}:make", SIZE).check_repeatable()


def test_copies_and_pickles_compute_the_same(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = create_backbone(write_package(folder, "pickled"), SIZE).eval()
    images = torch.randn(2, 3, *SIZE)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(twin.pooled(images), backbone.pooled(images))
        assert not twin.training
    printed = capfd.readouterr()
    assert "made by code that prints" not in printed.out  # which is for results
    assert "made by code that prints" in printed.err


def test_a_checkpoint_keeps_weights_that_layers_share(write: Write, tmp_path: Path) -> None:
    body = returning("self.conv(F.interpolate(x[:, :3], scale_factor=4)) + self.twin(images)")
    name = write(body + "\ndef make():\n    net = Net()\n    net.twin = net.conv\n    return net\n")
    card = ModelCard(f"{name}:make", 6, ("a", "b"), Preprocessing(size=SIZE), VQSAConfig(4))
    model = VQSA(create_backbone(card.backbone, SIZE), 2, card.vqsa).eval()
    save_checkpoint(tmp_path / "best.safetensors", model, card)
    again = load_checkpoint(tmp_path / "best.safetensors", backbone=card.backbone).model
    images = torch.randn(2, 3, *SIZE)
    assert torch.equal(again(images).logits, model(images).logits)


def test_names_of_own_backbones() -> None:
    for name in ("net:make", "my_package.nets:Net", "a.b:Net.small"):
        assert is_import_path(name)
    for name in (
        "resnet18",
        "timm:vit",
        "a b:c",
        "a:b;c",
        "net:",
        ":make",
        "a:b:c",
        "ä:b",
        "./a:b",
    ):
        assert not is_import_path(name)


def test_the_current_folder_is_first_while_importing_and_last_afterwards(folder: Path) -> None:
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
    with current_folder_first():
        assert sys.path[0] == str(folder)
    assert sys.path[-1] == str(folder)
    with current_folder_first():
        assert sys.path[0] == str(folder)
    assert sys.path.count(str(folder)) == 1


def test_the_digest_follows_the_code_and_runs_none_of_it(folder: Path) -> None:
    name = write_package(folder, "digested")
    (folder / "digested" / "unrelated.py").write_text("x = 1")
    (folder / "beside.py").write_text("import digested.net\nraise SystemExit('never run')")
    before = source_digest(name), source_digest("beside:make")
    assert before == (source_digest(name), source_digest("beside:make"))
    (folder / "digested" / "unrelated.py").write_text("x = 2")
    assert before[0] == source_digest(name)
    with (folder / "digested" / "blocks.py").open("a") as blocks:
        blocks.write("# another version\n")
    after = source_digest(name), source_digest("beside:make")
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert "digested" not in sys.modules
    assert "beside" not in sys.modules


def test_a_state_dict_of_ones_own_is_for_training(folder: Path, tmp_path: Path) -> None:
    name = write_package(folder, "stateful")
    backbone = create_backbone(name, SIZE)
    assert isinstance(backbone, ImportedBackbone)
    path = tmp_path / "plain.pth"
    torch.save(backbone.network.state_dict(), path)
    loaded = load_checkpoint(path, backbone=name, to_train=True, size=SIZE).model.backbone
    assert isinstance(loaded, ImportedBackbone)
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[key])
    with pytest.raises(UsageError, match=f"no classifier: 'edgekit train .* --backbone {name}'"):
        load_checkpoint(path, backbone=name, size=SIZE)
    torch.save({**backbone.network.state_dict(), "other": torch.ones(1)}, path)
    with pytest.raises(UsageError, match="unknown key 'other'"):
        load_checkpoint(path, backbone=name, to_train=True, size=SIZE)
