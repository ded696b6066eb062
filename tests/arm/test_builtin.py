"""What `edgekit build` makes without a word of the user's, an EfficientNet-Lite0, on the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.store import open_bundle
from edgekit.core.console import Console
from edgekit.data.datasets import open_dataset
from edgekit.devices.remote_predictor import on_device
from edgekit.parity.predictors import open_bundle_predictor
from edgekit.steps.float_model import BUILTIN_FOLDER
from edgekit.training.builtin_model import builtin_checkpoint
from tests.arm.conftest import NAME, Likeness, Run, Table
from tests.arm.userland import SOURCE, Userland

QUIET = Console(verbosity=-1)
DATA = "builtin:fashion-mnist"
IMAGES = 16  # an emulated one takes seconds
HERE = "onnxruntime-cpu"  # the one of them that runs on both processors
TARGETS = (HERE, "openvino-arm")
both = pytest.mark.parametrize("target", TARGETS, scope="module")
pytestmark = pytest.mark.usefixtures("registered")
CACHE = SOURCE / "build" / "arm-cache"  # the model that is trained stays from run to run


@pytest.fixture(scope="module")
def built(userland: Userland, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a bundle for each target."""
    out = tmp_path_factory.mktemp("builtin")
    targets = [word for target in TARGETS for word in ("--target", target)]
    skipped = ("--no-bench", "--no-parity", "--no-watch")
    subprocess.run(
        [sys.executable, "-m", "edgekit", "build", "--out", out, *targets, *skipped, "--quiet"],
        env={**os.environ, "EDGEKIT_CACHE": str(CACHE)},
        check=True,
    )
    return out


@both
def test_deploy_and_selftest(
    built: Path, target: str, userland: Userland, run: Run, table: Table
) -> None:
    bundle = built / target
    runtime = open_bundle(bundle, any_arch=True).manifest.runtime.name
    words = ("--device", NAME, "--wheels", userland.wheels(runtime), "--json")
    code, out, err = run("deploy", bundle, *words)
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert entry["selftest"].startswith("self-test: ")
    table.add(f"built-in model: deploy {target}", entry["selftest"].removeprefix("self-test: "))


@both
def test_answers_are_as_here(built: Path, target: str, table: Table) -> None:
    dataset, preprocessing = open_dataset(DATA), open_bundle(built / HERE).manifest.preprocessing
    places = np.linspace(0, len(dataset) - 1, IMAGES).astype(int)
    pixels = np.stack([preprocessing.fit(dataset.image(int(index))) for index in places])
    here = open_bundle_predictor(built / HERE).run(pixels)
    with on_device(NAME, built / target, QUIET) as model:
        there = model.run(pixels)
    found = Likeness.of(here, there)
    table.add(f"built-in model: answers {target}", found.text("on x86 in ONNX Runtime"))
    assert min(found.top, found.codes) >= 0.9 * IMAGES
    assert found.off < 0.1


@both
def test_parity_with_the_float_model(built: Path, target: str, run: Run, table: Table) -> None:
    reference = builtin_checkpoint(CACHE / BUILTIN_FOLDER, QUIET)
    assert reference is not None
    words = (
        *("--reference", reference, "--data", DATA, "--images", IMAGES, "--full"),
        *("--corruptions", "fog,contrast", "--severities", "3", "--tolerance", "90", "--json"),
    )
    code, out, err = run("parity", built / target, "--device", NAME, *words)
    assert code == 0, err
    there = json.loads(out)
    assert there["candidate"].endswith(f"on {NAME}")
    code, out, err = run("parity", built / HERE, *words)
    assert code == 0, err
    agreement = [
        each["top1_agreement"]["corrupted"]["estimate"] for each in (there, json.loads(out))
    ]
    table.add(
        f"built-in model: parity {target}",
        f"{IMAGES * 3} cells, agreement with float {agreement[0]:.1%} ({agreement[1]:.1%} here in "
        "ONNX Runtime)",
    )
    assert abs(agreement[0] - agreement[1]) < 0.1
