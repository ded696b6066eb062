"""Ctrl-C while NNCF is at work: one line, exit code 130, nothing left, and a rerun works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekit.data.builtin import CLASSES
from edgekit.data.transforms import Preprocessing
from edgekit.model.backbones.registry import create_backbone
from edgekit.model.card import ModelCard
from edgekit.model.checkpoint import save_checkpoint
from edgekit.model.config import VQSAConfig
from edgekit.model.vqsa import VQSA
from tests.hostile.campaign.case import ROOT

# The whole group gets the signal, as from a terminal; at a moment that no clock could meet.
PRESS = """
import os, signal, sys, threading, time
from edgekit.cli.main import main
from edgekit.quantize import calibrate
from nncf.onnx.engine import ONNXEngine
from nncf.onnx.graph.model_transformer import ONNXModelTransformer

def press():
    print("NNCF is at work", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGINT)

def pressing(where, name, call, late=0.0):
    whole, calls = getattr(where, name), []
    def pressed(*words, **more):
        calls.append(name)
        if len(calls) == call and late:
            threading.Timer(late, press).start()
        elif len(calls) == call:
            press()
        return whole(*words, **more)
    setattr(where, name, pressed)

match sys.argv[1]:
    case "begins": pressing(calibrate._Counted, "__iter__", 1)
    case "infers": pressing(ONNXEngine, "infer", 7)
    case "infers on": pressing(ONNXEngine, "infer", 2, late=0.02)
    case "inserts": pressing(ONNXModelTransformer, "transform", 1)
    case "inserts on": pressing(ONNXModelTransformer, "transform", 3, late=0.01)
main(sys.argv[2:])
"""
# The other three of `PRESS` end in the same way; each costs twelve seconds.
MOMENTS = ("infers on", "inserts")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of small images, and a recipe that is done soon."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tmp").mkdir()
    torch.manual_seed(0)
    config = VQSAConfig(codebook_size=16)
    model = VQSA(create_backbone("resnet18"), len(CLASSES), config)
    card = ModelCard("resnet18", 512, CLASSES, Preprocessing(size=(32, 32)), config)
    save_checkpoint(folder / "best.safetensors", model, card)
    lines = ("images = 12", "rounding = 'nearest'", "bias_correction = 'fast'")
    (folder / "quick.toml").write_text("\n".join(lines))
    return folder


def calibrate(made: Path, *before: str) -> subprocess.CompletedProcess[str]:
    words = ["calibrate", "best.safetensors", "--data", "builtin:fashion-mnist", "--recipe",
             "quick.toml", "--no-guard", "-o", "out.onnx"]  # fmt: skip
    places = {"EDGEKIT_CACHE": str(made / "cache"), "TMPDIR": str(made / "tmp")}
    return subprocess.run(
        [sys.executable, *before, *words], cwd=made, start_new_session=True,
        env={**os.environ, **places, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_ctrl_c_at_any_moment_of_nncf(made: Path) -> None:
    for moment in MOMENTS:
        done = calibrate(made, "-c", PRESS, moment)
        assert "NNCF is at work" in done.stderr, moment
        assert done.returncode == 130, (moment, done.stderr)
        assert "Traceback" not in done.stderr, moment
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: interrupted; finished work is kept"), moment
        assert done.stdout == "", moment
        left = {path.name.partition("_")[0] for path in (made / "tmp").iterdir()}
        assert left <= {"torchinductor"}, moment  # torch's own cache, one for each user
        assert not list(made.glob("out.onnx*")), moment
        assert not list((made / "cache").glob("calibrate/*")), moment
    done = calibrate(made, "-m", "edgekit")
    assert done.returncode == 0, done.stderr
    assert (made / "out.onnx").stat().st_size > 1 << 20
