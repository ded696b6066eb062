"""The paper's ResNet-50 at full size, through INT8, against a forward pass in plain torch.

1000 classes, 1000 codewords of which dozens are in use, the authors' file layout. Small networks
with two codes in use hid that this one came out of calibration as garbage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from edgekit.bundle.store import open_bundle
from edgekit.cli.main import main
from edgekit.core.console import Console
from edgekit.data.corruptions import BENCHMARK15, corrupt
from edgekit.data.transforms import IMAGENET
from edgekit.quantize.guard import closeness, onnxruntime_answers
from edgekit.quantize.results import Closeness
from edgekit.runtime.answers import Answers, join
from edgekit.runtime.model import load
from edgekit.runtime.onnxruntime import named_outputs, open_session
from edgekit.steps.config import BuildConfig
from edgekit.workflows.build import build
from tests.full_size import lively_state, photographs
from tests.model.authors import authors_file, authors_forward

PARTS = {"train": 2, "calibration": 12, "validation": 16, "test": 2}
TEST_IMAGES = 48
RECIPES = {  # fewer images than the recipes of these names, but as they are otherwise
    "default": 'images = 12\ncorrupted_share = 0.5\ncorruptions = "benchmark15"\n',
    "clean": 'images = 12\nrounding = "nearest"\nfirst_depthwise = "int8"\n',
    # Every weight to the nearest level, and nothing corrected.
    "plain": 'images = 12\ncorrupted_share = 0.5\ncorruptions = "benchmark15"\n'
    'rounding = "nearest"\nbias_correction = "none"\n',
}

pytestmark = pytest.mark.every_core  # what a runtime does with several streams is a part of it


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for these tests, so that each step is computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def half_corrupted(count: int, seed: int) -> NDArray[np.uint8]:
    """Every second photograph under some corruption."""
    images = photographs(count, seed)
    for place in range(1, count, 2):
        name, severity = BENCHMARK15[(place // 2 + seed) % 15], 1 + place % 5
        images[place] = corrupt(images[place], name, severity, image_id=str(place), seed=seed)
    return images


@dataclass(frozen=True)
class FullSize:
    """A checkpoint, images to build with, and what plain torch says of the test images."""

    folder: Path
    test: NDArray[np.uint8]  # every second one corrupted
    expected: Answers

    def recipe(self, name: str) -> Path:
        """The file of one of `RECIPES`."""
        path = self.folder / f"{name}.toml"
        path.write_text(RECIPES[name], encoding="utf-8")
        return path

    def build(self, recipe: str, *targets: str) -> Path:
        """The folder of INT8 bundles."""
        out = self.folder / recipe
        config = BuildConfig(
            checkpoint=str(self.folder / "best.pth"),
            data=str(self.folder / "photos"),
            target=targets,
            out=str(out),
            recipe=str(self.recipe(recipe)),
            bench=False,
            parity=False,
            watch=False,
        )
        build(config, Console(verbosity=-1))
        return out

    def calibrate(self, recipe: str, dialect: str) -> Answers:
        """What the INT8 graph alone answers, in ONNX Runtime: no bundle is made."""
        path = self.folder / f"{recipe}-{dialect}.onnx"
        words: list[str | Path] = [
            "--data",
            self.folder / "photos",
            "--recipe",
            self.recipe(recipe),
            "-o",
            path,
        ]
        words = ["calibrate", self.folder / "best.pth", *words, "--dialect", dialect, "--no-guard"]
        with pytest.raises(SystemExit) as stop:
            main([*map(str, words), "--quiet"])
        assert stop.value.code == 0
        return onnxruntime_answers(onnx.load(path), self.test, IMAGENET)

    def judge(self, answers: Answers, *, clean: bool = False) -> Closeness:
        """How close answers to the test images are to torch's."""
        every = slice(None, None, 2 if clean else 1)
        return closeness(self.expected.part(every), answers.part(every))

    def answers(self, bundle: Path) -> Answers:
        """A bundle's; a Jetson's graph runs in ONNX Runtime."""
        if bundle.name.startswith("jetson"):
            session = open_session(str(bundle / "model.onnx"))
            # One by one, as a graph for one image wants them.
            return join(
                [Answers.of(named_outputs(session, image[np.newaxis])) for image in self.test]
            )
        return load(bundle).run(self.test)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> FullSize:
    folder = tmp_path_factory.mktemp("full-size")
    state = lively_state()
    torch.save(authors_file(state), folder / "best.pth")
    for number, (part, count) in enumerate(PARTS.items()):
        for place, image in enumerate(photographs(count, seed=number)):
            path = folder / "photos" / part / "ab"[place % 2] / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, compress_level=1)
    test = half_corrupted(TEST_IMAGES, seed=23)
    with torch.no_grad():
        parts = torch.from_numpy(IMAGENET.normalize(test)).split(8)
        found = [authors_forward(state, part) for part in parts]
    logits, code = (torch.cat(column).numpy() for column in zip(*found, strict=True))
    return FullSize(folder, test, Answers(logits, code, None))


@pytest.fixture(scope="module")
def default(full_size: FullSize) -> Path:
    return full_size.build("default", "cpu", "onnxruntime-cpu", "jetson-thor")


@pytest.fixture(scope="module")
def plain(full_size: FullSize) -> dict[str, Closeness]:
    """By target, each against its own form: TensorRT's has coarser activations."""
    dialects = {"onnxruntime-cpu": "onnxruntime", "jetson-thor": "tensorrt"}
    found = {
        target: full_size.judge(full_size.calibrate("plain", dialect))
        for target, dialect in dialects.items()
    }
    return {**found, "cpu": found["onnxruntime-cpu"]}


def test_the_codebook_is_lively(full_size: FullSize) -> None:
    assert full_size.expected.code is not None
    assert len(np.unique(full_size.expected.code)) >= 30
    assert len(np.unique(full_size.expected.logits.argmax(axis=1))) >= 25


@pytest.mark.parametrize("target", ["cpu", "onnxruntime-cpu", "jetson-thor"])
def test_int8_is_the_same_model_and_no_worse_than_plain_rounding(
    full_size: FullSize, default: Path, plain: dict[str, Closeness], target: str
) -> None:
    found, nearest = full_size.judge(full_size.answers(default / target)), plain[target]
    # Random weights amplify corrupted images, and 48 of them are few: beyond noise.
    assert found.logits_rms <= 1.2 * nearest.logits_rms, (found.describe(), nearest.describe())
    assert found.top1_equal >= nearest.top1_equal - 0.1, (found.describe(), nearest.describe())
    assert found.codes_equal is not None
    assert nearest.codes_equal is not None
    assert found.codes_equal >= nearest.codes_equal - 0.1, (found.describe(), nearest.describe())


def test_clean_calibration_is_close_on_clean_images(full_size: FullSize) -> None:
    found = full_size.judge(full_size.calibrate("clean", "onnxruntime"), clean=True)
    assert found.logits_rms <= 0.2, found.describe()
    assert found.codes_equal is not None
    assert found.codes_equal >= 0.9, found.describe()


def test_the_manifest_says_how_close_it_is(default: Path) -> None:
    for target in ("cpu", "onnxruntime-cpu", "jetson-thor"):
        section = open_bundle(default / target, any_arch=True).manifest.sections["guard"]
        assert section["passed"]
        assert section["views"] == 32
