"""Here an enemy wrote the bundle, or is the device."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or changes the user's devices and cache."""
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
