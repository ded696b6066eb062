"""What to run for a missing package, from wherever edgekit was installed."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from edgekit.core import packages


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The record that pip would have written."""
    info = tmp_path / "edgekit-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: edgekit\nVersion: 0.1.0\n")
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.Distribution.at(info))
    return info / "direct_url.json"


def command(extra: str = "build") -> str:
    packages._origin.cache_clear()
    try:
        return packages.install_command(extra)
    finally:
        packages._origin.cache_clear()


def test_from_an_index(installed: Path) -> None:
    assert command("openvino") == "pip install 'edgekit[openvino]'"


def test_from_a_checkout_and_a_wheel(installed: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "my {edgekit}"
    checkout.mkdir()
    installed.write_text(json.dumps({"url": checkout.as_uri(), "dir_info": {"editable": True}}))
    assert command() == f"pip install --editable '{checkout}[build]'"
    installed.write_text(json.dumps({"url": checkout.as_uri(), "dir_info": {}}))
    assert command() == f"pip install '{checkout}[build]'"
    wheel = tmp_path / "edgekit-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    installed.write_text(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    assert command("litert") == f"pip install '{wheel}[litert]'"
    wheel.unlink()  # thrown away since
    assert command("litert") == "pip install 'edgekit[litert]'"


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        '{"url": 3}',
        '{"url": "file:///tmp", "dir_info": 3}',
        '{"url": "https://example.org/edgekit.whl"}',
        '{"url": "file:///tmp/%1b"}',
    ],
)
def test_other_records(installed: Path, record: str) -> None:
    installed.write_text(record)
    assert command() == "pip install 'edgekit[build]'"


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert command() == "pip install 'edgekit[build]'"
