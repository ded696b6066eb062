"""A folder that holds what the pages speak of, small, so that their commands can run in it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edgekit.bench import interleaved
from edgekit.bench import run as bench
from edgekit.cli.main import main
from edgekit.data.corruptions import corrupt
from edgekit.data.pool import Pool
from edgekit.export.report import Batch
from edgekit.export.tracing import Prepared, trace
from edgekit.model.backbones.registry import BACKBONES
from tests.bundles import TinyBackbone
from tests.docs.pages import ROOT
from tests.exporting import remember_operators
from tests.foreign import classifiers

remember_operators()
Trace = Callable[[Prepared, tuple[int, int], int, Batch], onnx.ModelProto]
SPLITS = {"train": 60, "calibration": 20, "val": 60, "test": 40}
RECIPE = 'images = 3\nbias_correction = "none"\nrounding = "nearest"\n'
OWN_NETWORK = "from torch import nn\ndef make(): return nn.Conv2d(3, 8, 7, 7)\n"
BUDGETS = "[budgets]\nmax_drop = 0.5\nmin_agreement = 0.95\nmax_mb = 30\nmax_latency_ratio = 0.6\n"


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


def run(*words: str, stdin: str = "") -> Ran:
    """A command in this process, as from a shell."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(stdin))
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stop,
        ):
            main(list(words))
    assert isinstance(stop.value.code, int)
    return Ran(stop.value.code, out.getvalue(), err.getvalue())


def must(*words: str) -> None:
    """A command that the others need."""
    ran = run(*words)
    assert ran.code in (0, 3), f"edgekit {' '.join(words)}: {ran.err}"


def write_photos(folder: Path) -> None:
    """Images of ten classes that a network can tell apart, in four splits."""
    images, labels = classifiers.parts()["test"]
    row = 0
    for split, count in SPLITS.items():
        for number in range(count):
            path = folder / split / f"kind{labels[row]}" / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(path)
            row += 1


def write_frames(folder: Path, count: int, *, corruption: str = "") -> None:
    """What a camera saw: the test images, clean or not."""
    folder.mkdir(parents=True)
    images, _ = classifiers.parts()["test"]
    for number, image in enumerate(images[-count:]):
        seen = corrupt(image, corruption, 5, image_id=str(number)) if corruption else image
        Image.fromarray(seen).save(folder / f"{number:03}.jpg")


def write_published(folder: Path) -> None:
    """A set in ImageNet-C's layout: two images, clean and under two corruptions."""
    images, labels = classifiers.parts()["test"]
    for row in range(2):
        variants = {Path("clean"): images[row]}
        for corruption in ("fog", "snow"):
            for level in range(1, 6):
                pixels = corrupt(images[row], corruption, level, image_id=str(row))
                variants[Path(corruption) / str(level)] = pixels
        for cell, pixels in variants.items():
            path = folder / cell / f"kind{labels[row]}" / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def write_clip(path: Path) -> None:
    """A video of a few gray frames."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for gray in range(0, 250, 8):
        writer.write(np.full((48, 64, 3), gray, np.uint8))
    writer.release()


def write_foreign(folder: Path) -> None:
    """The same classifier from other tools."""
    import openvino as ov

    from tests.foreign.tflite import save_tflite

    shutil.copy(classifiers.float_onnx(), folder / "float.onnx")
    shutil.copy(classifiers.preprocessing(), folder / "pixels.toml")
    ov.save_model(ov.convert_model(str(folder / "float.onnx")), str(folder / "model.xml"))
    save_tflite(classifiers.network(), folder / "int8.tflite", integers=True)


def remembering(made: Trace) -> Trace:
    """PyTorch's exporter takes seconds, even for a model that it has just exported."""
    traced: dict[tuple[object, ...], onnx.ModelProto] = {}

    def again(
        prepared: Prepared, size: tuple[int, int], opset: int, batch: Batch
    ) -> onnx.ModelProto:
        weights = prepared.model.state_dict()
        values = b"".join(tensor.numpy().tobytes() for tensor in weights.values())
        key = tuple(prepared.model.outputs), tuple(weights), values, size, opset, batch
        if key not in traced:
            traced[key] = made(prepared, size, opset, batch)
        return copy.deepcopy(traced[key])

    return again


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """The folder, entered, with a home, cache and devices of its own, and a tiny backbone."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("BASH_COMPLETION_USER_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
            patch.delenv(variable, raising=False)
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("SHELL", "/bin/bash")  # a test run need not come from a shell
        patch.setenv("EDGEKIT_CACHE", str(folder / "cache"))
        patch.setenv("EDGEKIT_DEVICES", str(folder / "devices.toml"))
        patch.setitem(BACKBONES, "tiny", TinyBackbone)
        patch.setattr(Pool, "_start", lambda pool, workers: None)  # processes take longer to start
        patch.setattr(bench, "_COLD_STARTS", 1)
        patch.setattr(interleaved, "_TURN_SECONDS", 0.002)
        patch.setattr(interleaved, "_SETTLE_SECONDS", 0.001)
        settle = interleaved.warm_up
        patch.setattr(interleaved, "warm_up", lambda run, most_seconds: settle(run, most_seconds=0))
        patch.setattr("edgekit.export.exporter.trace", remembering(trace))
        os.chdir(folder)
        try:
            furnish(folder)
            yield folder
        finally:
            os.chdir(before)


def furnish(folder: Path) -> None:
    """Write what the names on the pages stand for, as far as no command there makes it."""
    write_photos(folder / "photos")
    Image.fromarray(classifiers.parts()["test"][0][0]).save("photo.jpg")
    write_frames(folder / "frames", 10)
    write_frames(folder / "camera", 110, corruption="fog")
    write_published(folder / "imagenet-c")
    write_clip(folder / "clip.mp4")
    write_foreign(folder)
    write_programs(folder)
    Path("my_nets.py").write_text(OWN_NETWORK)
    Path("tiny.toml").write_text(RECIPE)
    Path("budgets.toml").write_text(BUDGETS)
    Path("photos.toml").write_text("epochs = 1\n")
    for name in ("names.txt", "labels.txt"):
        Path(name).write_text("".join(f"kind{number}\n" for number in range(classifiers.CLASSES)))
    target = (ROOT / "targets/devices/cpu.toml").read_text(encoding="utf-8")
    Path("my-device.toml").write_text(target.replace('name = "cpu"', 'name = "my-device"'))


def masked(line: str) -> str:
    """A line without what differs from run to run: numbers, verdicts, widths of columns."""
    line = re.sub(r"\b(?:pass|fail|undecided)\b", "VERDICT", line)
    line = re.sub(r"[\w-]+\.(?:onnx|tflite|xml)\b", "FILE", line)
    line = re.sub(r"images of \S+,", "images of DATA,", line)
    line = re.sub(r"[-+±]?\d[\d.,]*(?:\^[\d.]+)?", "#", line)
    return " ".join(line.split())


def keys(folder: Path) -> None:
    """A key to sign with, and the list that allows it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True
    )
    kind, public = (folder / "key.pub").read_text().split()[:2]
    (folder / "allowed_signers").write_text(f'me namespaces="edgekit-bundle" {kind} {public}\n')


def write_programs(folder: Path) -> None:
    """The program that a page names, and a network that has no class for one of its scores."""
    from tests.foreign.test_program import GOOD
    from tests.foreign.tflite import save_tflite

    source = GOOD.replace("ROOT", repr(str(ROOT)))
    command = classifiers.program(source, "npu.py").removeprefix("command:")
    (folder / "npu.sh").write_text(f"#!/bin/sh\nexec {command}\n")
    (folder / "npu.sh").chmod(0o755)
    net = classifiers.network()
    none_of_them = np.zeros_like(net.weights[:, :1])
    weights = np.concatenate([none_of_them, net.weights], axis=1)
    bias = np.concatenate([[np.float32(-20)], net.bias]).astype(np.float32)
    with_background = dataclasses.replace(net, weights=weights, bias=bias)
    save_tflite(with_background, folder / "background.tflite", integers=False)
