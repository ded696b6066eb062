"""Checkpoints that ask for gigabytes, hold numbers that do not survive, or odd tensors."""

import importlib.util
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgekit.core.errors import UsageError
from edgekit.data.transforms import IMAGENET
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from tests.hostile.limited import MIB, run_with

CARD = ModelCard(
    backbone="resnet18",
    width=512,
    classes=("cat", "dog"),
    preprocessing=IMAGENET,
    vqsa=VQSAConfig(codebook_size=8),
)

LOAD = """
import sys
from pathlib import Path
for path in sys.argv[1:]:
    try:
        load_checkpoint(Path(path))
    except EdgekitError as error:
        print(f"{type(error).__name__}: {error}")
"""
IMPORTS = "from edgekit.model.checkpoint import load_checkpoint\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "best.safetensors"
    save_checkpoint(path, VQSA(create_backbone("resnet18"), 2, CARD.vqsa), CARD)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def tiny(path: Path, card: ModelCard) -> Path:
    """A card, and two tensors of twelve bytes."""
    header = {
        "__metadata__": {"edgekit": card.to_json()},
        "head.codebook.embeddings": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        "head.classifier.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [4, 12]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(12))
    return path


def test_a_card_that_asks_for_gigabytes_gets_none(tmp_path: Path) -> None:
    """Its model was built before anybody looked whether the file holds its weights."""
    card = replace(CARD, vqsa=VQSAConfig(codebook_size=4_000_000))
    codebook = tiny(tmp_path / "small.safetensors", card)
    assert codebook.stat().st_size < 2000
    backbones = ["resnet101"]
    if importlib.util.find_spec("timm"):
        backbones.append("timm:vit_giant_patch14_224")
    paths = []
    for number, backbone in enumerate(backbones):
        card = replace(CARD, backbone=backbone, vqsa=VQSAConfig(codebook_size=1))
        paths.append(str(tiny(tmp_path / f"{number}.safetensors", card)))
    first, *others = run_with(4000 * MIB, LOAD, str(codebook), *paths, imports=IMPORTS).splitlines()
    assert first.startswith("UsageError")
    assert str(codebook) in first
    assert "expected 4000000 rows" in first
    for path, line in zip(paths, others, strict=True):
        assert path in line
        assert "too few weights for the model that it names" in line


def test_a_codebook_beyond_all_bounds_is_one_line(tmp_path: Path) -> None:
    path = tiny(tmp_path / "small.safetensors", CARD)
    for size in (10**19, 10**400):
        old, new = b'codebook_size\\": 8', b'codebook_size\\": ' + str(size).encode()
        text = path.read_bytes()[8:-12].replace(old, new)
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(12))
        assert "codebook_size' must be a number of ordinary size" in refusal(path)
        tiny(path, CARD)


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"weight": torch.zeros(8)}, plain)
    packed = tmp_path / "packed.pth"
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
        with target.open("plain/data/1", "w", force_zip64=True) as stream:
            for _ in range(1100):
                stream.write(bytes(MIB))
    assert packed.stat().st_size < 6 * MIB
    assert "would take 1101 MiB of memory, more than 1024 MiB" in refusal(packed)


def test_storages_that_claim_more_than_the_file_holds_get_no_room(tmp_path: Path) -> None:
    """torch made room for 8 GiB, and then read. Both forms of the file."""
    honest, claimed = (struct.pack("<I", number) for number in (70_000, (1 << 31) - 1))
    modern, old = tmp_path / "modern.pth", tmp_path / "old.pth"
    torch.save({"w": torch.zeros(70_000)}, modern)
    with zipfile.ZipFile(modern) as source:
        records = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(modern, "w") as target:
        for name, data in records.items():
            target.writestr(name, data.replace(honest, claimed))
    torch.save({"w": torch.zeros(70_000)}, old, _use_new_zipfile_serialization=False)
    old.write_bytes(old.read_bytes().replace(honest, claimed))
    assert max(path.stat().st_size for path in (modern, old)) < MIB
    said = run_with(6000 * MIB, LOAD, str(modern), str(old), imports=IMPORTS).splitlines()
    for path, line in zip((modern, old), said, strict=True):
        assert str(path) in line
        assert f"{4 * ((1 << 31) - 1)} " in line
        assert "belong there" in line


def test_honest_storages_are_read(tmp_path: Path) -> None:
    """Of every type, shared by tensors, in both forms of the file."""
    shared = torch.arange(12.0)
    content = {
        "a": shared[:4], "b": shared[4:].reshape(2, 4), "c": torch.zeros(3, dtype=torch.bfloat16),
        "d": torch.zeros(0), "e": torch.ones(5, dtype=torch.int64), "f": torch.tensor(2.0),
        "g": torch.nn.Parameter(torch.ones(2, 2)), "h": torch.zeros(2, dtype=torch.bool),
    }  # fmt: skip
    for modern in (True, False):
        path = tmp_path / f"{modern}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=modern)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch's warnings are not for users
            state, _ = read_checkpoint(path)
        assert {key: value.shape for key, value in state.items()} == {
            key: value.shape for key, value in content.items()
        }


@pytest.mark.parametrize(
    ("key", "value", "dtype", "says"),
    [
        ("backbone.conv1.weight", 1e300, torch.float64, "beyond torch.float32"),
        ("backbone.bn1.running_var", -1.0, torch.float32, "negative variances"),
        ("head.codebook.embeddings", float("nan"), torch.float32, "NaN or infinite"),
    ],
)
def test_numbers_must_survive_the_copy(
    good: Path, tmp_path: Path, key: str, value: float, dtype: torch.dtype, says: str
) -> None:
    state = safetensors.torch.load_file(good)
    state[key] = state[key].to(dtype)
    state[key].view(-1)[0] = value
    path = tmp_path / "bad.safetensors"
    path.write_bytes(safetensors.torch.save(state, metadata={"edgekit": CARD.to_json()}))
    assert f"key '{key}' holds" in refusal(path)
    assert says in refusal(path)


ODD: dict[str, Callable[[], object]] = {
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "a sparse tensor ": lambda: torch.eye(3).to_sparse_csr(),
    "float8_e4m3fn values": lambda: torch.zeros(3, dtype=torch.float8_e4m3fn),
    "complex64 values": lambda: torch.zeros(3, dtype=torch.complex64),
    "a tensor without values": lambda: torch.zeros(3, device="meta"),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "an expanded tensor of 1000x1000000": lambda: torch.zeros(1).expand(1000, 1_000_000),
    "a quantized tensor": lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ODD)
def test_odd_tensors_are_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"conv1.weight": ODD[what]()}, path)
    text = refusal(path)
    assert f"key 'conv1.weight' holds {what.strip()}" in text or "PyTorch cannot read it" in text


@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"format_version": {"9" * 5000}}}', "nul"])
def test_a_card_that_is_no_card_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.safetensors"
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}, metadata={"edgekit": text}))
    assert "the model card is not JSON" in refusal(path)
