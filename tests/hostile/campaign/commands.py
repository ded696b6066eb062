"""The long commands with so little to do that each takes seconds, and what must hold afterwards."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgekit.bundle.manifest import MANIFEST
from tests.hostile.campaign.file_faults import TINY, Fault, Finished, Forker
from tests.hostile.campaign.nano import on_device, with_device

INT8: Final = ("int8.onnx", "int8.onnx.images.json")
TARGET: Final = "onnxruntime-cpu"
EVIDENCE: Final = ("parity.json", "bench.json")
# How long it took, how much of it was known already, and how often one has looked: not the result.
_MAKING: Final = frozenset(
    {"seconds", "cpu_seconds", "cost", "when", "created"}
    | {"inferences", "inferences_cached", "checked", "looks"}
)
SECONDS: Final = 120.0
"""For a command that takes ten at most: whoever waits longer waits for ever."""


@dataclass(frozen=True)
class Place:
    """Where one case runs; its commands write nowhere else."""

    folder: Path

    @property
    def bundle(self) -> Path:
        """The bundle that commands make or change."""
        return self.folder / "out" / TARGET

    @property
    def cache(self) -> Path:
        """The step cache and what else is kept."""
        return self.folder / "cache"

    @property
    def env(self) -> dict[str, str]:
        """Nothing of the user's is read or written."""
        return {
            "EDGEKIT_CACHE": str(self.cache),
            "EDGEKIT_DEVICES": str(self.folder / "devices.toml"),
            "TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder / "home"),
            "PATH": f"{self.folder / 'network'}:{os.environ['PATH']}",
            "SOURCE_DATE_EPOCH": "1700000000",
        }


@dataclass(frozen=True)
class Command:
    """One command, what lies there before, and what it leaves."""

    name: str
    words: Callable[[Place], list[str]]
    outputs: Callable[[Place], dict[str, bytes]]
    """What must come out the same again."""
    before: tuple[str, ...] = ()
    """Commands that run first, undisturbed."""
    forget: tuple[str, ...] = ()
    """What is removed before it starts, so that there is work to do."""
    program: str = "edgekit.cli.main:main"
    same_as: str = ""
    """A command that does the same: its outputs and its file operations are counted on instead."""


def _source(place: Place) -> list[str]:
    folder = material()
    return ["--data", str(folder / "levels.npz"), "--recipe", str(folder / "tiny.toml")]


def _build(place: Place, *more: str) -> list[str]:
    checkpoint = str(material() / "model.safetensors")
    words = ["build", "--checkpoint", checkpoint, *_source(place), "--target", TARGET, "--no-guard"]
    return [*words, "--out", str(place.folder / "out"), "--no-bench", "--no-parity", *more]


def _calibrate(place: Place) -> list[str]:
    words = ["calibrate", str(material() / "model.safetensors"), *_source(place), "--no-guard"]
    return [*words, "--dialect", "onnxruntime", "-o", str(place.folder / "int8.onnx")]


def _train(place: Place) -> list[str]:
    words = "train --weights none --image-size 32 --epochs 2 --validation-images 6 --workers 0"
    words += " --seen contrast --batch-size 4 --codebook-size 6 --threads 1 --save-every 0"
    data = str(material() / "levels.npz")
    return [*words.split(), "--backbone", TINY, "--data", data, "--out", str(place.folder / "run")]


def _parity(place: Place, images: int) -> list[str]:
    words = f"--images {images} --corruptions contrast --severities 3 --tolerance 50"
    data = str(material() / "levels.npz")
    return ["parity", str(place.bundle), "--data", data, *words.split()]


def _sign(place: Place) -> list[str]:
    return ["sign", str(place.bundle), "--key", str(material() / "key")]


def _place(place: Place) -> list[str]:
    """A deploy's last step, on the device: the bundle's files have been copied there."""
    return [*_staged(place), str(place.folder / "device" / TARGET)]


def _staged(place: Place) -> list[str]:
    staging, manifest = place.folder / "staging", ""
    staging.mkdir(exist_ok=True)
    for path in place.bundle.iterdir():
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        (staging / digest).write_bytes(data)
        manifest = digest if path.name == MANIFEST else manifest
    return [str(staging), manifest]


def _replace(place: Place) -> list[str]:
    """The same where another bundle was deployed, which is kept."""
    nano = place.folder / "nano"
    there = nano / "bundles" / TARGET
    state, previous = there.with_name(f".{TARGET}.json"), nano / "previous" / TARGET
    return [*_staged(place), str(there), "--keep", str(state), str(previous)]


def _put_back(place: Place) -> list[str]:
    """A rollback's last step, on the device."""
    nano = place.folder / "nano"
    there, previous = nano / "bundles" / TARGET, nano / "previous" / TARGET
    digest = hashlib.sha256((previous / MANIFEST).read_bytes()).hexdigest()
    return [str(previous), digest, str(there), str(there.with_name(f".{TARGET}.json"))]


def _both(place: Place) -> dict[str, bytes]:
    """A bundle on the device, and what is kept of the one before it."""
    folders = [place.folder / "nano" / name / TARGET for name in ("bundles", "previous")]
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    return {str(path.relative_to(place.folder)): path.read_bytes() for path in files}


def _placed_files(place: Place) -> dict[str, bytes]:
    folder = place.folder / "device" / TARGET
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _deploy(place: Place) -> list[str]:
    """The whole of it, from the host; `_place` is its last step alone."""
    return ["deploy", str(place.bundle), "--device", with_device(place.folder)]


def _deployed(place: Place) -> dict[str, bytes]:
    return on_device(place.folder, TARGET)


def _roll_back(place: Place) -> list[str]:
    return ["deploy", "--rollback", "--device", with_device(place.folder)]


def _zipped(place: Place) -> dict[str, bytes]:
    zipped = place.folder / "out" / f"{TARGET}.zip"
    return {**_bundle_files(place), zipped.name: zipped.read_bytes()}


def _add(name: str) -> Callable[[Place], list[str]]:
    return lambda place: ["device", "add", name, f"{name}@host"]


def _files(*names: str) -> Callable[[Place], dict[str, bytes]]:
    return lambda place: {name: (place.folder / name).read_bytes() for name in names}


def _bundle_files(place: Place) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.bundle.iterdir())}


def _comparison(place: Place) -> dict[str, bytes]:
    document = json.loads((place.bundle / "parity.json").read_bytes())
    return {"parity.json": json.dumps(timeless(document), sort_keys=True).encode()}


def timeless(value: Any) -> Any:
    """A document without what it says of its own making."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in _MAKING}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


COMMANDS: Final = {
    command.name: command
    for command in (
        Command("build", _build, _bundle_files),
        Command("build anew", lambda p: _build(p, "--seed", "1"), _bundle_files, ("evidence",)),
        Command(
            "build again",
            lambda p: _build(p, "--force"),
            _bundle_files,
            ("build",),
            same_as="build",
        ),
        Command("calibrate", _calibrate, _files(*INT8)),
        Command("calibrate again", _calibrate, _files(*INT8), ("calibrate",), forget=INT8),
        Command(
            "calibrate anew",
            _calibrate,
            _files(*INT8),
            ("calibrate",),
            forget=(*INT8, "cache/calibrate"),
        ),
        Command("train", _train, _files("run/best.safetensors", "run/last.safetensors")),
        Command("parity", lambda p: _parity(p, 4), _comparison, ("evidence",), ("cache/parity",)),
        Command("evidence", lambda p: _parity(p, 2), _comparison, ("bench",)),
        Command(
            "deploy",
            _place,
            _placed_files,
            ("build",),
            program="edgekit.devices.remote.place:main",
        ),
        Command(
            "deploy again",
            _place,
            _placed_files,
            ("deploy",),
            program="edgekit.devices.remote.place:main",
        ),
        Command("sign", _sign, _files(f"out/{TARGET}/signature.json"), ("evidence",)),
        Command("zip", lambda p: _build(p, "--zip"), _zipped, ("build",)),
        Command("more parity", lambda p: _parity(p, 6), _comparison, ("parity",)),
        Command("deploy over ssh", _deploy, _deployed, ("build",)),
        Command("sign what is there", _sign, _bundle_files, ("deploy over ssh",)),
        Command("deploy over ssh again", _deploy, _deployed, ("sign what is there",)),
        Command(
            "replace",
            _replace,
            _both,
            ("sign what is there",),
            program="edgekit.devices.remote.place:main",
        ),
        Command(
            "put back",
            _put_back,
            _both,
            ("deploy over ssh again",),
            program="edgekit.devices.remote.previous:main",
        ),
        Command("roll back", _roll_back, _deployed, ("deploy over ssh again",)),
        Command("device add", _add("first"), _files("devices.toml")),
        Command("device add again", _add("second"), _files("devices.toml"), ("device add",)),
    )
}


@functools.cache
def material() -> Path:
    """Images, a checkpoint, a recipe and a key."""
    import torch

    from edgekit.data.transforms import Preprocessing
    from edgekit.model.card import ModelCard, TrainingProtocol
    from edgekit.model.checkpoint import save_checkpoint
    from edgekit.model.config import VQSAConfig
    from edgekit.model.vqsa import VQSA
    from tests.bundles import TinyBackbone
    from tests.training.training_data import CLASSES, write_data

    folder = scratch() / "material"
    folder.mkdir()
    write_data(folder, train=6, validation=6)
    torch.manual_seed(3)
    config = VQSAConfig(codebook_size=6)
    network = VQSA(TinyBackbone(), len(CLASSES), config).eval()
    preprocessing = Preprocessing(size=(32, 32), crop_ratio=1.0)
    seen = TrainingProtocol(seen=("fog",))
    card = ModelCard(TINY, TinyBackbone.channels, CLASSES, preprocessing, config, seen)
    save_checkpoint(folder / "model.safetensors", network, card)
    lines = ("images = 3", 'bias_correction = "none"', 'rounding = "nearest"')
    (folder / "tiny.toml").write_text("\n".join(lines))
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
    subprocess.run(command, check=True)
    return folder


@functools.cache
def scratch() -> Path:
    """A folder that lives as long as this process."""
    import atexit

    path = Path(tempfile.mkdtemp(prefix="edgekit-campaign-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def forker() -> Forker:
    """The parent of all commands."""
    folder = scratch() / "forker"
    folder.mkdir()
    return Forker(folder)


@dataclass(frozen=True)
class Undisturbed:
    """A command that nobody stopped: where it started, and what came of it."""

    before: Path
    after: Path
    outputs: dict[str, bytes]
    finished: Finished


@functools.cache
def undisturbed(name: str) -> Undisturbed:
    """Made once a process; cases start from copies."""
    command = COMMANDS[name]
    if command.same_as:
        first = undisturbed(command.same_as)
        return dataclasses.replace(first, before=undisturbed(command.before[-1]).after)
    here = scratch() / name.replace(" ", "-")
    # Every case runs under one path: commands write paths down.
    place = Place(scratch() / "case")
    if command.before:
        _restore(undisturbed(command.before[-1]).after, place.folder)
    else:
        _empty(place.folder)
    for name in command.forget:
        path = place.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(place.folder, here / "before", symlinks=True)
    finished = run(command, place, Fault("count", folder=place.folder))
    assert finished.code in (0, 3), (name, finished)  # a comparison of four images decides nothing
    result = command.outputs(place)
    shutil.rmtree(place.folder / "tmp")
    (place.folder / "tmp").mkdir()
    shutil.copytree(place.folder, here / "after", symlinks=True)
    return Undisturbed(here / "before", here / "after", result, finished)


def begin(name: str) -> Place:
    """A place where nothing but what comes before the command has happened."""
    place = Place(scratch() / "case")
    _restore(undisturbed(name).before, place.folder)
    return place


def run(command: Command, place: Place, fault: Fault | None = None) -> Finished:
    """The command in a child, to its end."""
    words = command.words(place)
    child = forker().start(words, place.folder, fault=fault, env=place.env, program=command.program)
    return forker().wait(child, SECONDS)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tmp", "home", "cache"):
        (folder / name).mkdir(parents=True)


def _restore(source: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, symlinks=True)


# A bench takes half a minute, most of it starting Python: its evidence is put there as it would be.
def _bench(place: Place) -> list[str]:
    words = ["--seconds", "0.05", "--scenario", "latency", "--baseline", "none"]
    return ["bench", str(place.bundle), *words]


COMMANDS["bench"] = Command("bench", _bench, lambda _: {}, ("build",))
