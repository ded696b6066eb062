"""A bundle whose engine only its device can build: what every command says of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests import bundles
from tests.commands import run

TARGET = "jetson-orin-nano"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the bundle and an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(bundles.bundle(TARGET, "auto"), TARGET)
    Path("photos").mkdir()
    Image.new("RGB", (32, 24)).save("photos/a.png")
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "words",
    [
        ("predict", TARGET, "photos/a.png"),
        ("bench", TARGET),
        ("parity", TARGET, "--data", "photos"),
        ("watch", TARGET, "photos", "--once"),
    ],
)
def test_nothing_runs_it_and_all_say_what_comes_next(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 4
    assert f"error: {TARGET} has no engine yet" in err
    assert f"'edgekit deploy {TARGET} --device NAME' builds it on the device" in err
    assert "pip" not in err


@pytest.mark.usefixtures("here")
def test_what_can_be_said_without_its_engine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", TARGET)
    assert code == 0
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert ["engine", f"not built yet: 'edgekit deploy {TARGET} --device NAME' builds it on the"
            " device"] in lines  # fmt: skip
    assert "graph's parity     not measured" in out
    code, _, err = run(capsys, "check", TARGET)
    assert code == 2
    assert f"'edgekit check {TARGET}/model.onnx --dialect tensorrt' reads its graph" in err
    assert run(capsys, "check", f"{TARGET}/model.onnx")[0] == 0
    code, _, err = run(capsys, "deploy", TARGET)
    assert code == 2
    assert "name where to, with --device" in err
    code, out, _ = run(capsys, "targets", TARGET)
    assert code == 0
    assert ["JetPack", "6.2"] in [line.split() for line in out.splitlines()]
    assert "openvino" not in out
