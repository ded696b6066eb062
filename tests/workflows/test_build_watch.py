"""The monitor's reference in a build: the step alone is done, and only once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import UsageError
from edgekit.field.monitor import reference_of
from edgekit.steps import field_options
from edgekit.steps.config import BuildConfig
from edgekit.steps.step import State
from edgekit.workflows.build import BuildPlan, build, plan
from tests.training.training_data import QUIET, write_data
from tests.workflows.small_build import HERE, settings


def states(found: BuildPlan) -> dict[str, State]:
    return {str(step.step): step.state for step in found.steps}


def quick(model: Path, out: Path, **changes: Any) -> BuildConfig:
    return settings(model, out, **{"bench": False, "parity": False, "watch": None} | changes)


def test_a_bundle_gets_its_reference_without_being_built_again(
    model: Path, empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", train=6, validation=60)
    data, out = str(tmp_path / "data" / "levels.npz"), tmp_path / "out"
    without = quick(model, out, data=data, watch=False)
    build(without, QUIET)
    default = quick(model, out, data=data)
    manifest = (out / HERE / "manifest.json").read_text()
    todo = states(plan(default, QUIET))
    assert (todo["compile"], todo["watch"]) == ("up to date", "to do")
    assert (out / HERE / "manifest.json").read_text() == manifest
    build(default, QUIET)
    reference = reference_of(out / HERE)
    assert len(reference.cells) == 45
    assert reference.normal.images + reference.clean.images >= 50
    for name in {cell.corruption for cell in reference.cells}:
        one_severity_each = [c.images for c in reference.cells if c.corruption == name]
        assert sum(one_severity_each) == reference.clean.images
    asked = quick(model, out, data=data, watch=True)
    assert states(plan(asked, QUIET))["watch"] == "up to date"
    assert "watch" not in states(plan(without, QUIET))


def test_too_few_validation_images_are_no_error_unless_a_reference_was_asked_for(
    model: Path, empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = quick(model, out, watch=True)
    with pytest.raises(UsageError, match="validation images, and a monitor's reference needs 50"):
        build(asked, QUIET)
    assert not out.exists()  # said before anything was compiled
    build(quick(model, out), Console())
    assert "no reference for a monitor" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"field\.json"):
        reference_of(out / HERE)
    assert states(plan(quick(model, out), QUIET))["watch"] == "up to date"
    with pytest.raises(UsageError, match="reference needs 50"):
        build(asked, QUIET)


def test_a_model_that_is_expensive_gets_fewer_images_unless_asked_for(
    model: Path,
    empty: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(field_options, "_AFFORDED", 1)  # so that no number of images is cheap
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", train=6, validation=54)
    data, out = str(tmp_path / "data" / "levels.npz"), tmp_path / "out"

    def images() -> int:
        reference = reference_of(out / HERE)
        return reference.normal.images + reference.clean.images

    usual = quick(model, out, data=data)
    build(usual, Console())
    said = r"watch: 50 of 54 validation images: an answer costs \d\d million multiply-adds "
    assert re.search(said + r"\(--watch-images 54 for all\)", capsys.readouterr().err)
    assert images() == 50
    assert states(plan(usual, QUIET))["watch"] == "up to date"
    asked = quick(model, out, data=data, watch_images=54)
    todo = states(plan(asked, QUIET))
    assert (todo["compile"], todo["watch"]) == ("up to date", "to do")
    build(asked, Console())
    assert "of 54 validation images" not in capsys.readouterr().err
    assert images() == 54
    assert states(plan(asked, QUIET))["watch"] == "up to date"
