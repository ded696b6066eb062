import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.errors import UsageError
from edgekit.data.transforms import IMAGENET, LITE0
from edgekit.model.backbones.efficientnet_lite import lite0_imagenet_file
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard, TrainingProtocol
from edgekit.model.checkpoint import load_checkpoint, save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.labels import read_labels
from edgekit.model.vqsa import VQSA
from edgekit.workflows.inspect import inspect_checkpoint
from tests.model.authors import authors_file, authors_forward, authors_state


@pytest.fixture(scope="module")
def authors() -> dict[str, torch.Tensor]:
    return authors_state(n=1000, classes=1000)


@pytest.fixture(scope="module")
def authors_path(
    authors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("authors") / "best.pth"
    torch.save(authors_file(authors), path)
    return path


@pytest.fixture(scope="module")
def small() -> tuple[VQSA, ModelCard]:
    torch.manual_seed(0)
    config = VQSAConfig(codebook_size=7, output="residual", quantize="spatial")
    model = VQSA(create_backbone("resnet18"), 3, config).eval()
    training = TrainingProtocol(seen=("fog",), data="builtin")
    card = ModelCard("resnet18", 512, ("a", "b", "ü"), IMAGENET, config, training)
    return model, card


def small_state(extra: str = "fc") -> dict[str, torch.Tensor]:
    """A plain resnet18 classifier of 3 classes under torchvision's names."""
    torch.manual_seed(1)
    state = dict(create_backbone("resnet18").state_dict())
    state[f"{extra}.weight"] = torch.randn(3, 512)
    state[f"{extra}.bias"] = torch.randn(3)
    return state


def save(path: Path, document: object) -> Path:
    torch.save(document, path)
    return path


def test_authors_layout_agrees_with_the_reference_by_hand(
    authors: dict[str, torch.Tensor], authors_path: Path
) -> None:
    assert len(authors) == 326
    model, card, notes = load_checkpoint(authors_path)
    assert card.backbone == "resnet50"
    assert (card.width, card.vqsa.codebook_size, len(card.classes)) == (2048, 1000, 1000)
    assert "released layout" in notes[0]
    assert card.training.describe_seen() == "seen=benchmark15"
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, code = authors_forward(authors, images)
        output = model(images)
    assert torch.equal(output.code, code)
    assert float((output.logits - expected).abs().max() / expected.abs().max()) < 1e-5


def test_inspect_authors_layout(authors_path: Path) -> None:
    report = inspect_checkpoint(authors_path)
    # ResNet-50 without fc, three D x D matrices, codebook, fuse layer, classifier.
    backbone = 23_508_032
    head = 3 * 2048**2 + 1000 * 2048 + 2 * 2048**2 + 2048 + 1000 * 2048 + 1000
    assert report.parameters == backbone + head
    assert report.head_parameters == head
    assert 4.0e9 < report.macs - report.head_macs < 4.2e9  # the usual 4.1 GMAC of ResNet-50
    # lookup + K, Q, V on two tokens + fuse + classifier; the 2 x 2 attention is negligible
    minimum = 1000 * 2048 + 6 * 2048**2 + 2 * 2048**2 + 1000 * 2048
    assert minimum <= report.head_macs < minimum * 1.001
    rows = dict(report.rows())
    assert rows["codebook size N"] == "1000"
    assert "5 x 2048^2 head weights became 2.5 x 2048^2" in rows["deployable form"]
    json.dumps(report.to_dict())


def test_own_format_round_trip(tmp_path: Path, small: tuple[VQSA, ModelCard]) -> None:
    model, card = small
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, card)
    loaded = load_checkpoint(path)
    assert loaded.card == card
    assert loaded.notes == ()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key
    first = path.read_bytes()
    save_checkpoint(path, loaded.model, loaded.card)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_plain_resnet_is_taken_as_it_is(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = small_state()
    document: object = {prefix + key: value for key, value in state.items()}
    if wrapper:
        document = {wrapper: document, "epoch": 3}
    path = save(tmp_path / "plain.pth", document)
    loaded = load_checkpoint(path)
    assert "it has no codes ('edgekit train --weights" in loaded.notes[0]
    assert (loaded.card.backbone, loaded.card.vqsa.output) == ("resnet18", "none")
    assert loaded.card.training.describe_seen() == "seen=unknown"
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        feature = loaded.model.backbone.pooled(images)
        expected = feature @ state["fc.weight"].T + state["fc.bias"]
        output = loaded.model(images)
        assert torch.allclose(output.logits, expected, atol=1e-4)
    assert output.code is None


def test_plain_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.torch.save_file(small_state(), path)
    assert load_checkpoint(path).card.backbone == "resnet18"


def test_plain_lite0_with_imagenet_weights(tmp_path: Path) -> None:
    path = lite0_imagenet_file()
    model, card, notes = load_checkpoint(path)
    assert (card.backbone, card.width, len(card.classes)) == ("efficientnet-lite0", 1280, 1000)
    assert card.preprocessing == LITE0
    assert "plain efficientnet-lite0" in notes[0]
    source = torch.load(path, weights_only=True)
    assert torch.equal(model.head.classifier.weight, source["_fc.weight"])
    assert torch.equal(model.backbone.state_dict()["stem.weight"], source["_conv_stem.weight"])
    del source["_blocks.3._project_conv.weight"]
    with pytest.raises(UsageError, match=r"key '_blocks\.3\._project_conv\.weight' is missing"):
        load_checkpoint(save(tmp_path / "less.pth", source))


def test_a_backbone_without_classifier_can_only_be_trained(tmp_path: Path) -> None:
    path = save(tmp_path / "bare.pth", dict(create_backbone("resnet18").state_dict()))
    with pytest.raises(
        UsageError, match=r"has no classifier: 'edgekit train --weights .*bare\.pth"
    ):
        load_checkpoint(path)
    weight = create_backbone("resnet18").state_dict()["conv1.weight"].shape
    assert load_checkpoint(path, to_train=True).model.backbone.conv1.weight.shape == weight


@pytest.fixture(scope="module")
def timm() -> Any:
    from edgekit.model.backbones.timm import import_timm

    return import_timm()


def test_timm_classifier(tmp_path: Path, timm: Any) -> None:
    model = timm.create_model("mobilenetv3_small_100", num_classes=4).eval()
    path = save(tmp_path / "timm.pth", model.state_dict())
    with pytest.raises(UsageError, match="add --backbone timm:NAME"):
        load_checkpoint(path)
    with pytest.raises(UsageError, match="did you mean 'timm:mobilenetv3_small_100'"):
        load_checkpoint(path, backbone="mobilenetv3_small_100")
    loaded = load_checkpoint(path, backbone="timm:mobilenetv3_small_100")
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(loaded.model(images).logits, model(images), atol=1e-4)


def test_a_timm_classifier_that_is_a_convolution(tmp_path: Path, timm: Any) -> None:
    model = timm.create_model("resnetv2_18", num_classes=3).eval()
    assert model.state_dict()["head.fc.weight"].shape == (3, 512, 1, 1)
    path = save(tmp_path / "v2.pth", model.state_dict())
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        ours = load_checkpoint(path, backbone="timm:resnetv2_18").model(images).logits
        assert torch.allclose(ours, model(images), atol=1e-4)


def test_timm_classifiers_that_are_more_than_a_last_layer(tmp_path: Path, timm: Any) -> None:
    for name, problem in (
        ("deit_tiny_distilled_patch16_224", "has 2 classifiers .*head, head_dist"),
        ("caformer_s18", "works on 2048 values, and timm:caformer_s18 pools 512"),
    ):
        path = save(tmp_path / f"{name}.pth", timm.create_model(name, num_classes=2).state_dict())
        with pytest.raises(UsageError, match=f"{problem}.*edgekit calibrate model.onnx"):
            load_checkpoint(path, backbone=f"timm:{name}")


def test_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.pth", small_state())
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nfrog\n\n", encoding="utf-8")
    assert load_checkpoint(path, classes=read_labels(labels)).card.classes == ("cat", "dog", "frog")
    with pytest.raises(UsageError, match="classifies 3 classes, the labels name 2"):
        load_checkpoint(path, classes=["a", "b"])
    labels.write_text("cat\n\ndog\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"labels\.txt:2: empty line"):
        read_labels(labels)
    labels.write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="empty"):
        read_labels(labels)


@pytest.mark.parametrize(
    "text",
    [
        '["cat", "dog"]',
        '{"1": "dog", "0": "cat"}',
        '{"0": ["n02121808", "cat"], "1": ["n02084071", "dog"]}',
    ],
)
def test_labels_of_an_index_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(text, encoding="utf-8")
    assert read_labels(path) == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cat\ndog", "not JSON"),
        ("[]", "expected a list"),
        ("3", "expected a list"),
        ('{"0": "cat", "2": "dog"}', "no class has the index 1"),
        ('["cat", ""]', "the class with index 1 has no name"),
        ('["cat", []]', "the class with index 1 has no name"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_index_file_gets_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "index.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=why) as error:
        read_labels(path)
    assert "\n" not in str(error.value)


class Payload:
    """What a malicious pickle would run."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.victim),)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "pwned"
    for name, write in (
        ("zip.pth", lambda path: torch.save({"model": Payload(victim)}, path)),
        ("raw.pth", lambda path: path.write_bytes(pickle.dumps({"model": Payload(victim)}))),
    ):
        write(tmp_path / name)
        with pytest.raises(UsageError, match=r"never loaded|not a PyTorch or safetensors") as error:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not victim.exists()


def change(key: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = small_state()
    if value is None:
        del state[key]
    else:
        state[key] = value
    return state


NAN = torch.full((512,), math.nan)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            lambda: change("bn1.weight", torch.ones(32)),
            r"key 'bn1\.weight' has shape 32, expected 64",
        ),
        (
            lambda: change("layer2.0.conv1.weight", None),
            r"key 'layer2\.0\.conv1\.weight' is missing, expected 128x64x3x3",
        ),
        (
            lambda: change("layer2.0.conv9.weight", torch.ones(1)),
            r"unknown key 'layer2\.0\.conv9\.weight' \(did you mean 'layer2\.0\.conv",
        ),
        (lambda: change("layer4.1.bn2.bias", NAN), r"key 'layer4\.1\.bn2\.bias' holds NaN"),
        (
            lambda: change("bn1.weight", torch.ones(64, dtype=torch.int64)),
            r"key 'bn1\.weight' holds torch\.int64 values",
        ),
        (lambda: change("fc.weight", torch.ones(3)), r"'fc\.weight' has shape 3, expected a mat"),
        (
            lambda: {"a.weight": torch.ones(2)},
            r"not a checkpoint that edgekit knows \(keys: a\.weight",
        ),
        (dict, "holds no weights at all"),
        (lambda: [1, 2], "holds a list, not a dict of weights"),
        (lambda: {"x": 1}, "key 'x' holds a int, expected a tensor"),
        (lambda: {"model": {}}, "holds no weights at all"),
    ],
)
def test_damaged_content_is_one_clear_line(tmp_path: Path, document, message: str) -> None:
    path = save(tmp_path / "bad.pth", document())
    with pytest.raises(UsageError, match=message) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_damage_in_the_authors_layout_speaks_its_names(tmp_path: Path) -> None:
    state = {key: torch.empty(0) for key in authors_state(n=2, classes=2, d=2048)}
    with pytest.raises(UsageError, match=r"'codebook\.embeddings\.weight' has shape 0"):
        load_checkpoint(save(tmp_path / "a.pth", {"model": state}))
    del state["codebook.embeddings.weight"]
    with pytest.raises(UsageError, match=r"key 'codebook\.embeddings\.weight' is missing"):
        load_checkpoint(save(tmp_path / "b.pth", {"model": state}))


def test_an_unknown_resnet(tmp_path: Path) -> None:
    state = {k: v for k, v in small_state().items() if not k.startswith("layer3.1")}
    with pytest.raises(UsageError, match="ResNet with 2-2-1-2 basic blocks, which is none of"):
        load_checkpoint(save(tmp_path / "odd.pth", state))


def test_files_that_cannot_be_read(tmp_path: Path, small: tuple[VQSA, ModelCard]) -> None:
    with pytest.raises(UsageError, match="cannot read checkpoint"):
        load_checkpoint(tmp_path)
    own = tmp_path / "own.safetensors"
    save_checkpoint(own, *small)
    data = own.read_bytes()
    for cut in (0, 4, 9, 500, len(data) // 2, len(data) - 1):
        own.write_bytes(data[:cut])
        with pytest.raises(UsageError, match=re.escape(str(own))):
            load_checkpoint(own)
    own.write_bytes(data.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9'))
    with pytest.raises(UsageError, match="checkpoint format 9, this edgekit reads 1"):
        load_checkpoint(own)
    own.write_bytes(data.replace(b'\\"seen\\"', b'\\"sean\\"'))
    with pytest.raises(UsageError, match=r"unknown key 'training\.sean' \(did you mean 'seen'"):
        load_checkpoint(own)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_torch_file_never_ends_in_a_traceback(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.pth"
        torch.save({"fc.weight": torch.ones(2, 2)}, path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        with pytest.raises(UsageError):
            load_checkpoint(path)


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, small: tuple[VQSA, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left"):
        save_checkpoint(path, *small)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
