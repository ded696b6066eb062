"""Small real models and their bundles, made once for every test that wants them."""

import functools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.bundle.manifest import Manifest, ModelInput, tool_versions
from edgekit.bundle.store import write_bundle
from edgekit.compilers.base import LookupForm, compiler
from edgekit.data.transforms import Preprocessing
from edgekit.export.exporter import export_onnx
from edgekit.model.backbones.base import Backbone
from edgekit.model.card import ModelCard
from edgekit.model.config import Quantize, VQSAConfig
from edgekit.model.vqsa import VQSA, Output
from edgekit.targets.descriptor import Descriptor, load_descriptor
from tests import shared
from tests.exporting import remember_operators

remember_operators()
CLASSES = tuple(f"kind {i}" for i in range(7))
SIZE = (24, 32)  # not square, so that height and width cannot be mistaken for each other


class TinyBackbone(Backbone):
    """Three convolutions; small enough to export and compile in no time."""

    channels = 24

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.second = nn.Conv2d(16, 16, 3, 2, 1)
        self.third = nn.Conv2d(16, self.channels, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.first(images))
        return F.relu(self.third(F.relu(self.second(x))))


@dataclass(frozen=True)
class Made:
    """A model, its card, and its float ONNX file."""

    model: VQSA
    card: ModelCard
    onnx: Path

    def expect(self, images: NDArray[np.uint8]) -> Output:
        """Torch's own answer to RGB images of the model's size."""
        with torch.no_grad():
            output: Output = self.model(torch.from_numpy(self.card.preprocessing.normalize(images)))
        return output


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of the model's size that differ in color and contrast, uint8 [count, H, W, 3]."""
    random = np.random.default_rng(seed)
    color = random.uniform(0, 255, (count, 1, 1, 3))
    noise = random.normal(0, 1, (count, *SIZE, 3)) * random.uniform(5, 90, (count, 1, 1, 1))
    return np.clip(color + noise, 0, 255).astype(np.uint8)


@functools.cache
def network(
    channel_order: str = "RGB", quantize: Quantize = "pooled", plain: bool = False
) -> tuple[VQSA, ModelCard]:
    """A model with random weights whose codewords are features of `images`."""
    torch.manual_seed(7)
    config = VQSAConfig(
        codebook_size=16, quantize=quantize, output="none" if plain else "attention"
    )
    preprocessing = Preprocessing(
        size=SIZE,
        mean=(90.0, 120.0, 140.0),
        std=(50.0, 60.0, 70.0),
        channel_order=channel_order,  # type: ignore[arg-type] # a Literal, as a parameter
    )
    model = VQSA(TinyBackbone(), len(CLASSES), config).eval()
    if model.head.codebook is not None:
        pixels = torch.from_numpy(preprocessing.normalize(images(16, seed=1)))
        with torch.no_grad():
            features = model.backbone.features(pixels, quantize)
            rows = features.reshape(len(features), -1, TinyBackbone.channels)[:, 0]
            model.head.codebook.embeddings.copy_(rows)
    return model, ModelCard("tiny", TinyBackbone.channels, CLASSES, preprocessing, config)


@functools.cache
def made(channel_order: str = "RGB", quantize: Quantize = "pooled", plain: bool = False) -> Made:
    """That model, and its graph."""
    model, card = network(channel_order, quantize, plain)
    name = f"{channel_order}-{quantize}-{plain}.onnx"
    path = shared.once(name, lambda path: export_onnx(model, card, path))
    return Made(model, card, path)


@functools.cache
def bundle(target: str = "cpu", lookup: LookupForm = "inline", batch: int | None = None) -> Path:
    """A float bundle of `made()`; tests must not write into it."""
    this = made()
    descriptor = float_target(target)
    if batch is not None:
        descriptor = replace(descriptor, batch=batch)
    name = f"{target}-{lookup}-{batch}"
    return shared.once(
        name, lambda path: pack(this.onnx, this.card, descriptor, path, lookup=lookup)
    )


def float_target(name: str) -> Descriptor:
    """The target, for a bundle that is not quantized."""
    return replace(load_descriptor(name), precision="fp32")


def pack(
    onnx_path: Path,
    card: ModelCard,
    descriptor: Descriptor,
    path: Path,
    *,
    lookup: LookupForm = "auto",
) -> Manifest:
    """Compile ``onnx_path`` for ``descriptor`` and put the bundle at ``path``."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as work:
        compiled = compiler(descriptor.backend)(
            onnx_path, card.preprocessing, descriptor, Path(work), lookup
        )
        manifest = Manifest(
            model={"backbone": card.backbone},
            classes=len(card.classes),
            preprocessing=card.preprocessing,
            input=ModelInput(compiled.input_name, *card.preprocessing.size),
            target=descriptor,
            arch=compiled.arch,
            main=compiled.main,
            plugins=compiled.plugins,
            runtime=compiled.runtime,
            versions=tool_versions(),
            sections=compiled.sections,
        )
        files = {file.name: file for file in compiled.files}
        return write_bundle(path, manifest, files, card.classes)
