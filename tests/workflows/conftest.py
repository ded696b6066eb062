"""A small model, and caches in which it is exported and calibrated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.workflows.build import build
from tests.training.training_data import QUIET
from tests.workflows.small_build import settings, small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a checkpoint and a recipe, and a cache in which it is calibrated."""
    return small_model(tmp_path_factory.mktemp("a model's"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def warm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the model is exported and calibrated."""
    folder = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(folder / "cache"))
        build(settings(model, folder / "out", bench=False, parity=False), QUIET)
    return folder / "cache"


@pytest.fixture
def cache(warm: Path, empty: Path) -> Path:
    """A copy of it, for one test alone."""
    return shutil.copytree(warm, empty)
