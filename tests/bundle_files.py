"""A bundle of a few bytes, for tests of what becomes of its files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.bundle import manifest
from edgekit.bundle.manifest import BundleError, Manifest, ModelInput, RuntimeNeed, Source
from edgekit.bundle.store import open_bundle, write_bundle
from edgekit.core.host import host_arch
from edgekit.core.resources import resource
from edgekit.data.transforms import Preprocessing
from edgekit.targets.descriptor import load_descriptor

LABELS = ("ant", "Biene", "chèvre")
PLUGIN = "libedgekit_codebook.so"


def about(*, plugin: bool = False) -> Manifest:
    return Manifest(
        model={"backbone": "tiny", "vqsa": {"codebook_size": 4}},
        classes=3,
        preprocessing=Preprocessing(size=(8, 8)),
        input=ModelInput("images", 8, 8),
        target=load_descriptor("cpu"),
        arch=host_arch() if plugin else "any",
        main="model.xml",
        plugins=(PLUGIN,) if plugin else (),
        runtime=RuntimeNeed("openvino", "2026.4.1", "exact"),
        versions={"edgekit": "0.1.0"},
        source=Source(checkpoint="ab" * 32),
        rebuild="edgekit build",
    )


def files(*, plugin: bool = False, weights: bytes = b"weights") -> dict[str, Path | bytes]:
    contents: dict[str, Path | bytes] = {"model.xml": b"<net/>", "model.bin": weights}
    if plugin:
        contents[PLUGIN] = resource(f"_native/{PLUGIN}")
    return contents


def write(path: Path, *, plugin: bool = False, weights: bytes = b"weights") -> Path:
    write_bundle(path, about(plugin=plugin), files(plugin=plugin, weights=weights), LABELS)
    return path


def rewrite(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a manifest as somebody would who knows how to compute its digest."""
    document = json.loads((path / "manifest.json").read_text())
    change(document)
    document["digest"] = manifest._digest(document)
    (path / "manifest.json").write_text(manifest._render(document))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.exit_code == 2
    return text
