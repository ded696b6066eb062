"""Garbage is not written, with or without parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgekit
import edgekit.quantize.calibrate
import edgekit.runtime.runner
from edgekit.bundle.store import open_bundle
from edgekit.cli.main import main
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.graph.layers import weight_names
from edgekit.runtime.answers import Answers
from edgekit.steps import guard
from edgekit.steps.build_data import open_data
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.steps.options import DataOptions, SourceOptions
from tests.e2e import trained

SOURCE = ("--data", trained.DATA, "--recipe", "quick.toml")
QUICK = (*SOURCE, "--no-parity", "--no-watch", "--no-bench")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A calibration that loses a layer's scale, and what that layer's weights are called."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(trained.cache_of_floats(tmp_path / "cache")))
    monkeypatch.chdir(tmp_path)
    lines = ("images = 12", "bias_correction = 'none'", "rounding = 'nearest'")
    Path("quick.toml").write_text("\n".join(lines))
    run = edgekit.quantize.calibrate.calibrate
    names: list[str] = []

    def losing_a_scale(model: onnx.ModelProto, *rest: Any) -> Any:
        graph, report = run(model, *rest)
        convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
        chosen = convolutions[len(convolutions) // 2]
        names.append(weight_names(model)[chosen.name])
        (reader,) = (node for node in graph.graph.node if chosen.input[1] in node.output)
        (scale,) = (t for t in graph.graph.initializer if t.name == reader.input[1])
        lost = np.ones_like(numpy_helper.to_array(scale))
        scale.CopyFrom(numpy_helper.from_array(lost, scale.name))
        return graph, report

    monkeypatch.setattr(edgekit.quantize.calibrate, "calibrate", losing_a_scale)
    return names


def build(out: Path, *words: str) -> int:
    checkpoint = ("--checkpoint", str(trained.checkpoint()))
    with pytest.raises(SystemExit) as stop:
        main(["build", *checkpoint, "--out", str(out), *QUICK, *words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("target", ["cpu", "jetson-orin-nano"])
def test_garbage_is_refused_and_its_layer_named(
    target: str, broken: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path / "out", "--target", target) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: INT8 answers differ from float's: on 64 held-out views ")
    assert f"most of it comes from {broken[0]}" in error
    assert not list((tmp_path / "out").glob("*"))


def test_whoever_insists_gets_it_with_a_warning(
    broken: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path / "out", "--no-guard") == 0
    assert "written anyway because of --no-guard" in capsys.readouterr().err
    section = open_bundle(tmp_path / "out" / "cpu").manifest.sections["guard"]
    assert section["passed"] is False
    assert section["views"] == 64


def test_calibrate_refuses_it_too(
    broken: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "int8.onnx"
    words = ["calibrate", str(trained.checkpoint()), *SOURCE]
    with pytest.raises(SystemExit) as stop:
        main([*words, "-o", str(output)])
    assert stop.value.code == 1
    assert "INT8 answers differ from float's" in capsys.readouterr().err
    assert not list(tmp_path.glob("int8*"))


def test_a_good_build_says_how_close_it_is(tmp_path: Path) -> None:
    bundle = trained.bundle()
    section = open_bundle(bundle).manifest.sections["guard"]
    assert section["passed"]
    assert section["top1_equal"] > 0.7
    assert json.dumps(section)


def test_a_bundle_that_disagrees_with_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's fault, played: with two streams the logits lose a scale."""
    real = edgekit.runtime.runner.open_runner

    def faulty(bundle: Any, settings: Any, cache: Any) -> Any:
        runner = real(bundle, settings, cache)
        if settings.streams != 2:
            return runner

        class Faulty:
            def run(self, batch: Any) -> Answers:
                said = runner.run(batch)
                return said._replace(logits=said.logits * 100)

        return Faulty()

    monkeypatch.setattr(edgekit.runtime.runner, "open_runner", faulty)
    with pytest.raises(EdgekitError, match=r"differently with hint throughput and 2 str"):
        guard.check_bundle(trained.bundle(), _held_out())


def test_every_setting_gives_the_same_answers() -> None:
    found = guard.check_bundle(trained.bundle(), _held_out())
    assert found.passed


def _held_out() -> guard.HeldOut:
    context = Context(Console(verbosity=-1), trained.cache())
    source = SourceOptions(str(trained.checkpoint()))
    exported = export(context, obtain_checkpoint(context, source), source)
    data = open_data(DataOptions(trained.DATA, seed=0, skip_bad=False), exported.card.classes)
    return guard.hold_out(context, exported, data)


def test_views_are_held_out_clean_and_corrupted_and_reused() -> None:
    first, second = _held_out(), _held_out()
    assert first.probe.pixels.shape[:2] == (32, 2)
    assert np.array_equal(first.probe.pixels, second.probe.pixels)
    assert first.probe.labels is None
    corruptions = first.probe.cells[:, 0] // 5
    assert len(np.unique(corruptions)) == 15
