"""A classifier without codes goes through a build like any other, and nothing speaks of codes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import edgekit
from edgekit.cli.build import in_words
from edgekit.parity.document import read_parity
from edgekit.workflows.build import build
from edgekit.workflows.inspect import inspect_bundle
from tests.training.training_data import CLASSES, QUIET
from tests.workflows.small_build import save_model, settings


def test_a_build_without_codes(model: Path, empty: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_model(path, plain=True)
    (outcome,) = build(settings(model, tmp_path / "out", checkpoint=str(path), bench=False), QUIET)
    report = inspect_bundle(outcome.path)
    parity = read_parity(report.bundle)
    assert parity is not None
    assert parity.codes is None
    assert parity.images == 2
    more = f"undecided: {parity.more_images:,} more test images like these would decide"
    assert in_words(outcome) == more
    assert ("model", "resnet18, D = 512, no codebook") in report.rows()
    assert not re.search(r"codeword|[Cc]odes", (outcome.path / "report.html").read_text())
    answer = edgekit.load(outcome.path).predict(np.full((32, 32, 3), 200, np.uint8))[0]
    assert (answer.code, answer.margin) == (None, None)
    assert answer.label in CLASSES
