"""Networks for `gallery.py` as anybody makes them: timm's architecture, PyTorch's own exporter.

Nothing of edgekit touches a model here; it only reads the images. Training is short and plain:
clean CIFAR-10 images, flipped and moved. The networks know more than chance, and far less than
they could; each is compared with its own float file. A network with ImageNet weights from a package
keeps them, and only its classifier is fitted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families_training import load_packaged
from gallery_models import SIDE, Model, preprocessing
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgekit.data.base import labels, subset
from edgekit.data.datasets import open_dataset
from edgekit.data.splits import stratified_sample
from edgekit.model.backbones.timm import import_timm

SEED = 0
CALIBRATION = 300  # training images that the tools get for their ranges
_BATCH = 64
_SHIFT = 4  # of the 32 pixels that a batch is moved by at most
_WARMUP = 0.1  # of the training
_FITTED = 3000  # images that a classifier on fixed features is fitted to


def prepare(data: Path, folder: Path) -> None:
    """Decode the training images once."""
    dataset = open_dataset(str(data))
    rows = dataset.given_splits["train"]
    images = np.stack([dataset.image(int(row)) for row in rows])
    np.save(folder / "train.npy", images)
    np.save(folder / "train-labels.npy", labels(dataset)[rows])
    (folder / "classes.txt").write_text("\n".join(dataset.classes))
    chosen = stratified_sample(subset(dataset, rows), CALIBRATION, seed=SEED)
    np.save(folder / "calibration.npy", images[chosen])


def pixels(model: Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images of any size as the network's input; what its TOML file describes."""
    return _input(model, torch.from_numpy(images)).numpy()


def _input(model: Model, images: Tensor) -> Tensor:
    values = images.permute(0, 3, 1, 2).float()
    # With antialiasing PyTorch resamples as Pillow does.
    values = functional.interpolate(values, (SIDE, SIDE), mode="bilinear", antialias=True)
    values = values.round().clamp(0, 255)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (model.mean, model.std))
    return (values - mean) / std


def create(model: Model, classes: int) -> nn.Module:
    """The untrained network, or one with ImageNet weights and an untrained classifier."""
    timm = import_timm()
    torch.manual_seed(SEED)
    if model.package is None:
        made: nn.Module = timm.create_model(model.name, num_classes=classes)
        return made
    network: Any = timm.create_model(model.name, num_classes=0)
    with torch.no_grad():
        load_packaged(network, model.package)
    network.reset_classifier(classes)
    return network  # type: ignore[no-any-return]


def train(model: Model, folder: Path, out: Path) -> None:
    """Write the trained weights, and how often the last answers in training were right."""
    images = torch.from_numpy(np.load(folder / "train.npy"))
    targets = torch.from_numpy(np.load(folder / "train-labels.npy").astype(np.int64))
    network = create(model, int(targets.max()) + 1)
    begun = time.process_time()
    fit = _fit if model.package is None else _fit_classifier
    right = fit(model, network, images, targets)
    torch.save(network.state_dict(), out / "model.pth")
    figures = {"processor_seconds": time.process_time() - begun, "right": right}
    (out / "training.json").write_text(json.dumps(figures))
    print(json.dumps({"model": model.name, **figures}), flush=True)


def _fit(model: Model, network: nn.Module, images: Tensor, targets: Tensor) -> float:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), model.lr, weight_decay=0.05, fused=True)
    generator = torch.Generator().manual_seed(SEED)
    right = 0.0
    for step in range(model.steps):
        share = step / model.steps
        for group in optimizer.param_groups:
            group["lr"] = (
                model.lr * min(1.0, (share + 0.01) / _WARMUP) * (1 + np.cos(np.pi * share)) / 2
            )
        rows = torch.randint(len(images), (_BATCH,), generator=generator)
        batch = _views(model, images[rows], generator)
        logits = network(batch)
        loss = functional.cross_entropy(logits, targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        right = 0.95 * right + 0.05 * float((logits.argmax(1) == targets[rows]).float().mean())
    return right


def _fit_classifier(model: Model, network: Any, images: Tensor, targets: Tensor) -> float:
    """The classifier alone, by L-BFGS, to the features of some images."""
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))[:_FITTED]
    network.eval()
    with torch.no_grad():
        features = torch.cat(
            [
                network.forward_head(
                    network.forward_features(_input(model, images[part])), pre_logits=True
                )
                for part in rows.split(_BATCH)
            ]
        )
    wanted, layer = targets[rows], network.get_classifier()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = functional.cross_entropy(layer(features), wanted)
        loss = loss + 2e-3 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float((layer(features).argmax(1) == wanted).float().mean())


def _views(model: Model, images: Tensor, generator: torch.Generator) -> Tensor:
    flipped = torch.randint(2, (len(images), 1, 1, 1), generator=generator).bool()
    images = torch.where(flipped, images.flip(2), images)
    top, left = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=generator).tolist()
    padded = functional.pad(
        images.permute(0, 3, 1, 2).float(), (_SHIFT,) * 4, mode="reflect"
    ).byte()
    side = images.shape[1]
    top, left = top + _SHIFT, left + _SHIFT
    moved = padded[:, :, top : top + side, left : left + side]
    return _input(model, moved.permute(0, 2, 3, 1))


def export(model: Model, classes: int, out: Path) -> None:
    """Write float.onnx with PyTorch's exporter as it comes; only the batch is left free."""
    network = create(model, classes)
    network.load_state_dict(torch.load(out / "model.pth", weights_only=True))
    example = torch.zeros(2, 3, SIDE, SIDE)
    torch.onnx.export(
        network.eval(),
        (example,),
        out / "float.onnx",
        input_names=["input"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    (out / "pixels.toml").write_text(preprocessing(model))
