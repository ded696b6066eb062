"""A bundle that the first release built goes to a device as today's do."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgekit.devices.registry import add_device
from tests import first_release
from tests.devices.conftest import Run, Server


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    """The bundle's runtime; from pip's cache as a rule."""
    folder = tmp_path / "wheels"
    pins = [f"onnxruntime=={metadata.version('onnxruntime')}", "numpy", "pillow", "click", "rich"]
    if sys.version_info < (3, 11):
        pins.append("tomli")
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:"]
    subprocess.run([*command, "-d", str(folder), *pins], check=True, capture_output=True)
    return folder


def test_it_is_deployed_and_measured(
    server: Server, wheelhouse: Path, tmp_path: Path, run: Run
) -> None:
    device = server.device(tmp_path / "device")
    add_device(device)
    bundle = first_release.unpacked(tmp_path)
    code, out, err = run("deploy", bundle, "--device", "loop", "--wheels", wheelhouse, "--json")
    assert code == 0, err
    (entry,) = json.loads(out)["devices"]
    assert entry["installed"]
    assert "older edgekit" in entry["selftest"]
    words = ("--scenario", "latency", "--seconds", "0.2", "--baseline", "none", "--json")
    code, out, err = run("bench", bundle, "--device", "loop", *words)
    assert code == 0, err
    (measured,) = json.loads(out)["bundles"]
    assert measured["device"] == {"name": "loop", "host": device.host}
