"""A network of the user's own, from training to a bundle and a fine-tuned INT8 graph."""

import json
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.model.checkpoint import load_checkpoint
from tests.commands import Ended, run
from tests.own_backbones import inside, write_package
from tests.training.training_data import CLASSES, write_data

RECIPE = "images = 6\nrounding = 'nearest'\nbias_correction = 'none'\n"
TRAIN = (
    "train --data levels.npz --image-size 32 --codebook-size 8 --seen contrast --batch-size 12 "
    "--lr 0.02 --ema 0.5 --threads 1 --device cpu"
)
BUILD = "build --target cpu --no-watch --no-bench --tolerance 60"


def test_a_network_of_ones_own_from_training_to_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path)
    name = write_package(tmp_path, "my_nets")
    (tmp_path / "quick.toml").write_text(RECIPE)

    def must(words: str) -> Ended:
        ended = run(capsys, *words.split())
        assert ended.code == 0, ended.err
        return ended

    with inside(tmp_path):
        # Everything learns, from the function's weights taken as random; positions are looked up.
        whole = must(
            f"{TRAIN} --backbone {name} --weights none --quantize spatial --epochs 4 --workers 0 "
            "--out whole"
        )
        assert f"{name}: its feature is a map of width 24, its weights are taken as random" in (
            whole.err
        )
        # Its backbone frozen, in a worker that imports the package as well; then fine-tuned.
        frozen = must(
            f"{TRAIN} --backbone {name} --weights whole/best.safetensors --epochs 3 --workers 1 "
            "--finetune-epochs 1 --out frozen --json"
        )
        assert json.loads(frozen.out)["validation"]["clean_error"] < 0.3  # chance is 0.67
        best = Path("frozen/best.safetensors")
        card = load_checkpoint(best, backbone=name).card
        assert (card.backbone, card.width, card.classes) == (name, 24, CLASSES)

        source = f"--data levels.npz --recipe quick.toml --backbone {name}"
        build = f"{BUILD} --checkpoint {best} {source}"
        must(build)
        with np.load("levels.npz") as arrays:
            images, labels = arrays["test_images"], arrays["test_labels"]
        answers = edgekit.load("build/cpu").predict(images).labels
        assert np.mean(np.array(answers) == np.array(CLASSES)[labels]) > 0.6
        assert states(must(f"{build} --dry-run --json")) == {"given", "up to date"}
        # The bundle's reference is the export of its build: comparing again imports nothing.
        must(f"parity build/cpu --reference {best} --tolerance 60")
        tuning = "--epochs 1 --train-images 12 --validation-images 6 --workers 0"
        must(f"finetune {best} {source} --out tuned {tuning}")
        assert Path("tuned/model-int8.onnx").exists()
        with Path("my_nets/blocks.py").open("a") as blocks:  # which the package's module imports
            blocks.write("# changed\n")
        assert "to do" in states(must(f"{build} --dry-run --json"))


def states(plan: Ended) -> set[str]:
    return {step["state"] for step in json.loads(plan.out)["steps"]}
