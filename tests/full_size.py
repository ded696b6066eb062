"""The paper's model at full size, with a codebook that is really used, and pictures to look at.

Random weights under batch norms that know their inputs' statistics, as a trained network's do, in
the authors' layout. The codebook's rows are features of pictures, so that many of them are chosen
and neighbors lie close together: what INT8 does to codes shows.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgekit.data.transforms import IMAGENET
from tests.model.authors import STAGES, authors_fused, authors_state

SIZE = 224
ROWS = 64  # scenes that the codebook's rows and the classes are made of


def scenes(count: int, seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    """Varied made-up photographs, uint8 [count, size, size, 3]: light, surfaces, objects, grain."""
    random = np.random.default_rng(seed)
    result = np.empty((count, size, size, 3), np.uint8)
    down, right = np.mgrid[0:size, 0:size] / size
    for image in result:
        angle = random.uniform(0, 2 * np.pi)
        light = np.cos(angle) * down + np.sin(angle) * right
        scene = random.uniform(30, 220, 3) + light[..., None] * random.uniform(-90, 90, 3)
        for cells in (4, 9, 28):
            coarse = random.normal(0, random.uniform(5, 45), (cells, cells, 3))
            scene += coarse[(down * cells).astype(int), (right * cells).astype(int)]
        waves = np.sin(2 * np.pi * random.uniform(3, 40) * (down * random.normal() + right))
        scene += waves[..., None] * random.uniform(0, 40, 3)
        for _ in range(random.integers(1, 7)):
            y, x, high, wide = random.uniform(0.05, 0.95, 4)
            inside = ((down - y) / high) ** 2 + ((right - x) / wide) ** 2 < random.uniform(
                0.02, 0.2
            )
            scene[inside] = 0.4 * scene[inside] + random.uniform(0, 150, 3)
        scene += random.normal(0, random.uniform(0, 20), scene.shape)
        image[:] = np.clip(scene * random.uniform(0.5, 1.2), 0, 255)
    return result


@functools.cache
def _known() -> NDArray[np.uint8]:
    return scenes(ROWS, seed=1000)


def photographs(count: int, seed: int) -> NDArray[np.uint8]:
    """The scenes that `lively_state` knows, in another light and with other grain."""
    random = np.random.default_rng(seed)
    chosen = _known()[np.arange(count) % ROWS].astype(np.float64)
    light = random.uniform(0.8, 1.2, (count, 1, 1, 3))
    shade = random.normal(0, 10, (count, 7, 7, 3)).repeat(SIZE // 7, 1).repeat(SIZE // 7, 2)
    grain = random.normal(0, 6, chosen.shape)
    return np.clip(chosen * light + shade + grain, 0, 255).astype(np.uint8)


def lively_state(n: int = 1000, classes: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """The authors' 326 entries; the running statistics and the codebook come from `scenes`."""
    state = authors_state(n=n, classes=classes, seed=seed)
    pixels = IMAGENET.normalize(_known())
    with torch.no_grad():
        features = _features(state, torch.from_numpy(pixels))
        generator = torch.Generator().manual_seed(seed)
        # Between two pictures' features, most of the way to the first.
        first = torch.arange(n) % ROWS
        second = torch.randint(ROWS, (n,), generator=generator)
        share = torch.rand(n, 1, generator=generator) * 0.5 * (torch.arange(n) >= ROWS)[:, None]
        rows = features[first] * (1 - share) + features[second] * share
        rows = rows * (0.5 + torch.rand(n, 1, generator=generator))  # lengths do not matter
        state["codebook.embeddings.weight"] = rows
        # Each class knows one picture, as a trained classifier's rows know their class: what all
        # pictures have in common says nothing, and margins are far from nothing.
        fused, _ = authors_fused(state, features)
        middle = fused.mean(dim=0)
        known = F.normalize(fused - middle, dim=1)[torch.arange(classes) % ROWS]
        strange = F.normalize(torch.randn(known.shape, generator=generator), dim=1)
        strange *= 0.5 * (torch.arange(classes) >= ROWS)[:, None]
        state["fc.weight"] = known + strange
        state["fc.bias"] = -state["fc.weight"] @ middle
    return state


def _features(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The pooled features of ``images``; the batch norms of ``state`` take their statistics."""

    def norm(x: Tensor, prefix: str) -> Tensor:
        state[f"{prefix}.running_var"], state[f"{prefix}.running_mean"] = torch.var_mean(
            x, dim=(0, 2, 3)
        )
        names = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (state[f"{prefix}.{name}"] for name in names)
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.conv2d(images, state["resnet_layer.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, "resnet_layer.1")), 3, 2, 1)
    for stage, (count, _, _) in enumerate(STAGES):
        for block in range(count):
            prefix = f"resnet_layer.{4 + stage}.{block}"
            stride = 2 if block == 0 and stage > 0 else 1
            y = F.relu(norm(F.conv2d(x, state[f"{prefix}.conv1.weight"]), f"{prefix}.bn1"))
            y = F.conv2d(y, state[f"{prefix}.conv2.weight"], stride=stride, padding=1)
            y = F.relu(norm(y, f"{prefix}.bn2"))
            y = norm(F.conv2d(y, state[f"{prefix}.conv3.weight"]), f"{prefix}.bn3")
            if block == 0:
                x = F.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride)
                x = norm(x, f"{prefix}.downsample.1")
            x = F.relu(x + y)
    return x.mean(dim=(2, 3))
