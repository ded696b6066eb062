"""A build for another processor: with our operators once they are compiled for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.bundle.store import open_bundle
from edgekit.core.console import Console
from edgekit.workflows.build import build
from tests.cross_compiled import compile_for_arm, compile_nothing, only_on_x86
from tests.workflows.small_build import settings

TARGET = "openvino-arm"


@only_on_x86
def test_the_operators_are_taken_along_once_they_are_there(
    model: Path,
    empty: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    config = settings(model, out, target=(TARGET,), bench=False, parity=False)
    line = "is not compiled for aarch64: run 'make arm-plugin' in its checkout"
    compile_nothing(monkeypatch)
    build(config, Console())
    assert capsys.readouterr().err.count(line) == 1
    assert open_bundle(out / TARGET).manifest.plugins == ()
    assert build(config, Console())[0].up_to_date

    plugin = compile_for_arm(tmp_path, monkeypatch)
    assert not build(config, Console())[0].up_to_date
    assert line not in capsys.readouterr().err
    bundle = open_bundle(out / TARGET, any_arch=True)
    assert (bundle.manifest.arch, bundle.manifest.plugins) == ("aarch64", (plugin.name,))
    assert build(config, Console())[0].up_to_date
