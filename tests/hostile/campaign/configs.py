"""Settings: TOML of builds, trainings, recipes, targets and the list of devices."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

from edgekit.quantize.recipes import Recipe
from edgekit.steps.config import BuildConfig
from edgekit.training.config import TrainConfig
from tests.hostile.campaign import seeds
from tests.hostile.campaign.case import ROOT
from tests.hostile.campaign.damage import damage
from tests.hostile.campaign.forked import Forked
from tests.hostile.campaign.structure import as_toml, spoil

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

Words = list[str | Path]


def _values(settings: Any) -> dict[str, Any]:
    found = {}
    for name, value in dataclasses.asdict(settings).items():
        if value is not None:
            plain = isinstance(value, bool | int | float | str | list | tuple)
            found[name] = (
                (list(value) if isinstance(value, tuple) else value) if plain else str(value)
            )
    return found


def _write(draw: random.Random, path: Path, document: dict[str, Any]) -> Path:
    spoiled = spoil(document, draw)
    data = as_toml(spoiled if isinstance(spoiled, dict) else document, draw)
    path.write_bytes(damage(data, draw) if draw.randrange(5) == 0 else data)
    return path


def _data(work: Path) -> Path:
    path = work / "data.npz"
    path.write_bytes(seeds.npz(packed=False))
    return path


def _build(draw: random.Random, work: Path) -> Words:
    checkpoint = work / "best.safetensors"
    checkpoint.write_bytes(seeds.checkpoint())
    values = _values(BuildConfig())
    values |= {"checkpoint": "best.safetensors", "data": str(_data(work)), "out": "out"}
    values = {key: values[key] for key in draw.sample(sorted(values), min(len(values), 6))}
    return ["build", "--dry-run", "--config", _write(draw, work / "build.toml", values)]


def _train(draw: random.Random, work: Path) -> Words:
    """There are no such weights, so that nothing is trained with settings that are all right."""
    values = {**_values(TrainConfig()), "data": str(_data(work)), "out": "run"}
    values = {key: values[key] for key in draw.sample(sorted(values), min(len(values), 8))}
    path = _write(draw, work / "train.toml", values)
    return ["train", "--config", path, "--weights", work / "nope.pth"]


def _recipe(draw: random.Random, work: Path) -> Words:
    recipe = _values(Recipe())
    path = _write(draw, work / "mine.toml", recipe)
    if draw.randrange(2):
        return ["build", "--dry-run", "--recipe", path, "--data", _data(work)]
    words: Words = ["calibrate", work / "nope.pth", "--data", work / "nope", "--recipe", path]
    return [*words, "-o", work / "out.onnx"]


def _target(draw: random.Random, work: Path) -> Words:
    source = draw.choice(sorted((ROOT / "targets" / "devices").glob("*.toml")))
    document = {**tomllib.loads(source.read_text()), "name": "mine"}
    path = _write(draw, work / "mine.toml", document)
    return ["build", "--dry-run", "--target", path, "--data", _data(work)]


def _devices(draw: random.Random, work: Path) -> Words:
    entry = {
        "name": "nano", "host": "nano@nowhere.invalid", "port": 22, "descriptor": "cpu",
        "python": "python3", "folder": "~/.edgekit", "options": ["-oProxyJump=x"],
        "signers": "/x", "require_signature": True,
    }  # fmt: skip
    document = {"device": [entry, {**entry, "name": "pi"}]}
    spoiled = spoil(document, draw)
    data = as_toml(spoiled if isinstance(spoiled, dict) else document, draw)
    (work / "devices.toml").write_bytes(damage(data, draw) if draw.randrange(4) == 0 else data)
    return draw.choice(
        (
            ["device", "list"],
            ["device", "list", "--json"],
            ["device", "remove", "nano"],
            ["device", "add", "new", "me@nowhere.invalid", "--port", "2222"],
        )
    )


HAZARDS = (
    Forked("configs: build", _build, codes=(1, 2, 4), writes=("out",)),
    Forked("configs: train", _train, codes=(2, 4)),
    Forked("recipes", _recipe, codes=(1, 2, 4)),
    Forked("targets", _target, codes=(1, 2, 4)),
    Forked("devices.toml", _devices, writes=("devices.toml",)),
)
