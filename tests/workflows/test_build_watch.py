"""``edgekit build --watch``: the step alone is done, and only once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.errors import UsageError
from edgekit.field.monitor import reference_of
from edgekit.steps.step import State
from edgekit.workflows.build import BuildPlan, build, plan
from tests.training.training_data import QUIET, write_data
from tests.workflows.small_build import HERE, settings


def states(found: BuildPlan) -> dict[str, State]:
    return {str(step.step): step.state for step in found.steps}


def test_a_bundle_gets_its_reference_without_being_built_again(
    model: Path, empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", train=6, validation=60)
    quick = settings(
        model, tmp_path / "out", data=str(tmp_path / "data" / "levels.npz"), bench=False,
        parity=False,
    )  # fmt: skip
    build(quick, QUIET)
    watched = settings(
        model, tmp_path / "out", data=quick.data, bench=False, parity=False, watch=True
    )
    manifest = (tmp_path / "out" / HERE / "manifest.json").read_text()
    todo = states(plan(watched, QUIET))
    assert (todo["compile"], todo["watch"]) == ("up to date", "to do")
    assert (tmp_path / "out" / HERE / "manifest.json").read_text() == manifest
    build(watched, QUIET)
    reference = reference_of(tmp_path / "out" / HERE)
    assert len(reference.cells) == 45
    assert reference.normal.images + reference.clean.images >= 50
    assert states(plan(watched, QUIET))["watch"] == "up to date"
    assert "watch" not in states(plan(quick, QUIET))


def test_too_few_validation_images_are_said(model: Path, empty: Path, tmp_path: Path) -> None:
    few = settings(model, tmp_path / "out", bench=False, parity=False, watch=True)
    with pytest.raises(UsageError, match="validation images, and a monitor's reference needs 50"):
        build(few, QUIET)
    assert not (tmp_path / "out").exists()  # said before anything was compiled
