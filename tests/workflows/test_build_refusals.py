"""Images that cannot be built with are refused before the export takes half a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.cli.main import cli
from edgekit.core.errors import UsageError
from edgekit.workflows.build import build
from tests.training.training_data import QUIET
from tests.workflows.small_build import settings


def without_class_folders(folder: Path) -> Path:
    """Photos, but nothing that says what they show."""
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32)).save(folder / f"{number}.png")
    return folder


def of_other_classes(folder: Path) -> Path:
    """Twenty images of what the model does not know."""
    for label in ("cats", "dogs"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (32, 32), (number, len(label), 0))
            image.save(folder / label / f"{number}.png")
    return folder


def only_for_tests(folder: Path) -> Path:
    """A split that leaves nothing to calibrate on."""
    folder.mkdir()
    images = np.zeros((6, 32, 32, 3), np.uint8)
    np.savez(folder / "data.npz", test_images=images, test_labels=np.zeros(6, np.int64))
    return folder / "data.npz"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (without_class_folders, "has no class folders"),
        (of_other_classes, "'cats'"),
        (only_for_tests, "has no calibration images"),
    ],
)
def test_unfit_images_are_refused_before_the_export(
    data: Callable[[Path], Path], said: str, model: Path, empty: Path, tmp_path: Path
) -> None:
    config = settings(model, tmp_path / "out", data=str(data(tmp_path / "data")))
    with pytest.raises(UsageError, match=said):
        build(config, QUIET)
    assert config.checkpoint is not None
    words = ["calibrate", config.checkpoint, "--data", config.data, "-o", str(tmp_path / "q.onnx")]
    with pytest.raises(UsageError, match=said):
        cli.main([*words, "--quiet"], standalone_mode=False)
    assert not list(empty.glob("export/*/model.onnx"))


def test_images_for_nothing_but_calibration_are_refused_before_it(
    model: Path, empty: Path, tmp_path: Path
) -> None:
    """Without any to test with, parity could only fail after everything else."""
    images = np.zeros((6, 32, 32, 3), np.uint8)
    labels = np.zeros(6, np.int64)
    np.savez(tmp_path / "data.npz", calib_images=images, calib_labels=labels)
    with pytest.raises(UsageError, match="has no test images"):
        build(settings(model, tmp_path / "out", data=str(tmp_path / "data.npz")), QUIET)
    assert not list(empty.glob("export/*/model.onnx"))
