"""What somebody types first: each is explained, and nothing long starts unasked."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import run

Capture = pytest.CaptureFixture[str]
PACKAGE = Path(__file__).resolve().parents[2] / "edgekit"


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def photos(folder: Path, *classes: str, each: int = 5) -> Path:
    """Different pictures of a few pixels, in a folder per class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_the_bare_command_helps(capsys: Capture) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert "Examples:" in out


def test_train_alone_explains_itself(capsys: Capture, tmp_path: Path) -> None:
    code, _, err = run(capsys, "train")
    assert code == 2
    assert "--data is missing" in err
    assert "builtin:fashion-mnist" in err
    assert "efficientnet-lite0 with its ImageNet weights, 256 codewords, 5 epochs" in err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_needs_images(capsys: Capture) -> None:
    code, _, err = run(capsys, "build", "--checkpoint", "best.pth", "--dry-run")
    assert code == 2
    assert "--data is missing: name the images that calibrate and judge best.pth" in err


def test_a_dry_run_writes_nothing(capsys: Capture, tmp_path: Path) -> None:
    assert run(capsys, "build", "--dry-run")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_settings_are_saved_again_if_they_are_the_same(capsys: Capture) -> None:
    words = ("build", "--dry-run", "--save-config", "build.toml")
    assert run(capsys, *words)[0] == 0
    before = Path("build.toml").read_bytes()
    assert run(capsys, *words)[0] == 0
    code, _, err = run(capsys, *words, "--seed", "1")
    assert code == 2
    assert "build.toml holds other settings" in err
    assert Path("build.toml").read_bytes() == before


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.10 or newer, and this is 3\.9\.18"):
        runpy.run_path(str(PACKAGE / "__init__.py"))


def test_a_plan_from_data(capsys: Capture, tmp_path: Path) -> None:
    data = photos(tmp_path / "photos", "cat", "dog", each=30)
    words = ("parity", "--plan", "--tolerance", "1", "--data", str(data))
    code, out, _ = run(capsys, *words, "--json")
    plan = json.loads(out)
    assert (code, plan["images"], plan["test_share"], plan["tolerance"]) == (0, 12, 0.2, 1)
    usual, uneven, equal = plan["cases"]
    assert usual["images"] < equal["images"] < uneven["images"]
    assert usual["decides"] == pytest.approx((usual["images"] / 12) ** 0.5, rel=0.01)
    code, out, _ = run(capsys, *words)
    assert f"collect {5 * uneven['images']:,} to be sure" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tolerance", "0"), "no number of images decides a tolerance of 0 points"),
        (("--tolerance", "1e-300"), "no number of images decides a tolerance of 1e-300 points"),
        (("--across",), "--plan compares nothing"),
        (("a", "b"), "--plan takes one bundle"),
        (("--min-agreement", "0.9"), "--min-agreement compares one candidate"),
    ],
)
def test_a_plan_that_makes_no_sense(capsys: Capture, words: tuple[str, ...], message: str) -> None:
    code, _, err = run(capsys, "parity", "--plan", *words)
    assert code == 2
    assert message in err
