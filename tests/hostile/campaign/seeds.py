"""What is valid, and made once: the cases are copies of it, spoiled."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

from edgekit.bench.options import BenchOptions
from edgekit.bench.strength import section
from edgekit.bundle import manifest as manifests
from edgekit.bundle.build_record import BuildRecord
from edgekit.bundle.signature import sign
from edgekit.bundle.store import update_bundle
from edgekit.core.errors import ToolchainMissing, UsageError
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import default_preprocessing, save_checkpoint
from edgekit.model.vqsa import VQSA
from edgekit.steps.selftest import make_self_test
from edgekit.steps.selftest_scenes import make_scenes
from tests import bundles, shared
from tests.bench import example as bench
from tests.parity import example as parity

BACKENDS = ("onnxruntime-cpu", "cpu")


@functools.cache
def bundle(target: str) -> Path:
    """A float bundle of a tiny network, with evidence, a self-test and a signature."""
    path = Path(shutil.copytree(bundles.bundle(target), shared.own() / f"seed-{target}"))
    made = bundles.made()
    measured = bench.document(BenchOptions())
    compared = parity.document()
    headline = section(None, measured)
    assert headline is not None
    update_bundle(
        path,
        sections={
            "bench": headline.to_dict(), "parity": compared.summary(),
            "build": BuildRecord("ab" * 32, complete=True, data="photos").to_dict(),
        },
        reports={
            "bench.json": json.dumps(measured.to_dict()).encode(),
            "parity.json": json.dumps(compared.to_dict()).encode(),
        },
    )  # fmt: skip
    graph, preprocessing = onnx.load(made.onnx), made.card.preprocessing
    scenes = make_scenes(graph, preprocessing, None, 0)
    test = make_self_test(graph, preprocessing, scenes, "onnxruntime")
    document = json.loads((path / "manifest.json").read_text())
    put(path, document, {"selftest.npz": test.to_bytes()})
    if shutil.which("ssh-keygen"):
        sign(path, keys() / "alice")
    return path


def put(path: Path, document: dict[str, Any], files: dict[str, bytes]) -> None:
    """Write files into a bundle, and the manifest that lists them as they are now."""
    listed = document.get("files")
    for name, data in files.items():
        (path / name).write_bytes(data)
        if isinstance(listed, dict):
            listed[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (path / "manifest.json").write_bytes(sealed(document))


def sealed(document: dict[str, Any]) -> bytes:
    """A manifest with its digest, also where it holds what no manifest may."""
    try:
        document["digest"] = manifests._digest(document)
        text = manifests._render(document)
    except UsageError:
        text = json.dumps(document)
    return text.encode("utf-8", "surrogatepass")


def manifest(path: Path) -> dict[str, Any]:
    """A bundle's manifest as plain values."""
    document: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return document


def give_bundle(target: str, work: Path) -> Path:
    """A copy of it in ``work``."""
    return Path(shutil.copytree(bundle(target), work / "bundle"))


@functools.cache
def keys() -> Path:
    """A folder with a key of alice, and the list that allows it."""
    folder = shared.own() / "keys"
    folder.mkdir()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", "alice"]
    subprocess.run(command, cwd=folder, check=True)
    public = " ".join((folder / "alice.pub").read_text().split()[:2])
    (folder / "signers").write_text(f"alice@factory {public}\n")
    return folder


@functools.cache
def checkpoint() -> bytes:
    """A checkpoint of ours: a small network that timm knows, if timm is there."""
    torch.manual_seed(0)
    made = bundles.made()
    try:
        backbone: Any = create_backbone("timm:test_vit")
        name = "timm:test_vit"
    except ToolchainMissing:
        backbone, name = create_backbone("resnet18"), "resnet18"
    model = VQSA(backbone, len(bundles.CLASSES), made.card.vqsa)
    card = ModelCard(
        name, model.head.width, bundles.CLASSES, default_preprocessing(backbone), made.card.vqsa
    )
    path = shared.own() / "seed.safetensors"
    save_checkpoint(path, model, card)
    return path.read_bytes()


@functools.cache
def npz(packed: bool) -> bytes:
    """Images of two splits, as pixels and as PNG files."""
    pixels = bundles.images(8)
    encoded = [images()["png"], images()["jpg"]] * 2
    ends = np.cumsum([0, *map(len, encoded)])
    stream = io.BytesIO()
    save: Any = np.savez_compressed if packed else np.savez
    save(
        stream, train_images=pixels, train_labels=np.arange(8) % 2, val_labels=np.arange(4) % 2,
        val_jpeg=np.frombuffer(b"".join(encoded), np.uint8), val_offsets=ends,
        classes=np.array(["cat", "dog"]),
    )  # fmt: skip
    return stream.getvalue()


@functools.cache
def images() -> dict[str, bytes]:
    """One image file of each kind, by extension."""
    picture = Image.fromarray(bundles.images(1)[0])
    made = {}
    formats: dict[str, dict[str, Any]] = {
        "png": {}, "jpg": {"quality": 80}, "webp": {"lossless": True}, "bmp": {},
        "gif": {}, "tiff": {"compression": "tiff_lzw"}, "ppm": {},
    }  # fmt: skip
    for name, options in formats.items():
        stream = io.BytesIO()
        picture.save(stream, {"jpg": "JPEG"}.get(name, name.upper()), **options)
        made[name] = stream.getvalue()
    rgba = picture.convert("RGBA")
    stream = io.BytesIO()
    rgba.save(stream, "WEBP", save_all=True, append_images=[rgba.rotate(90)])
    made["anim.webp"] = stream.getvalue()
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(stream, "JPEG", progressive=True, exif=exif.tobytes())
    made["exif.jpg"] = stream.getvalue()
    return made
