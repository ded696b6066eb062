"""Nothing that edgekit does tells anybody: no name is looked up, nothing is kept in HOME.

Packages report in threads and in processes of their own, so each Python process of a run has an
audit hook. A library that looks up names without Python leaves its identifier in HOME.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bundles
from tests.photos import write_photos

RECORDER = """
import os, sys

def look(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") or (
        event == "socket.connect" and isinstance(arguments[1], tuple)
    ):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{event} {arguments[0]} {arguments[1]}\\n")

sys.addaudithook(look)
"""
# All that a build imports and that could report; the event is what a calibration sends.
BUILD = """
import time
from edgekit.data.datasets import open_dataset
from edgekit.data.pool import Pool
from tests.hostile.test_privacy import imports_openvino

if __name__ == "__main__":  # and not again in the worker
    from edgekit.cli.main import main
    import edgekit.quantize.calibrate, edgekit.compilers.openvino, edgekit.compilers.onnxruntime
    import nncf, onnx, onnxruntime, openvino, openvino.tools.ovc, huggingface_hub, torch

    nncf.telemetry.telemetry.send_event("nncf_onnx", "compress_to", "ptq")
    with Pool(open_dataset("builtin:fashion-mnist"), imports_openvino, 1) as pool:
        assert list(pool.map([0])) == [0]
        time.sleep(1.5)
"""


def imports_openvino(_dataset: object, task: int) -> int:
    import openvino.tools.ovc  # noqa: F401 # what reports is that it is imported

    return task


class Watched:
    """A home of its own, and a list of the names that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.asked = folder / "asked"
        hooks = folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(RECORDER)
        # Whoever runs the tests may have switched things off; the user of this test has not.
        kept = {
            name: value
            for name, value in os.environ.items()
            if "TELEMETRY" not in name and not name.startswith(("CI", "XDG_", "NNCF_", "TF_BUILD"))
        }
        path = os.pathsep.join([str(hooks), str(Path.cwd()), *filter(None, sys.path)])
        self.environment = {
            **kept, "HOME": str(self.home), "ASKED": str(self.asked), "PYTHONPATH": path,
            "EDGEKIT_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )

    def left(self) -> list[str]:
        """Files in HOME, and names that were looked up."""
        files = [str(path) for path in self.home.rglob("*") if path.is_file()]
        return files + (self.asked.read_text().splitlines() if self.asked.exists() else [])


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.mark.parametrize("target", ["cpu", "onnxruntime-cpu"])
def test_predict_asks_nobody(watched: Watched, tmp_path: Path, target: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_photos(photos)
    bundle = str(bundles.bundle(target))
    done = watched.run("-m", "edgekit", "predict", bundle, str(photos), "--json")
    assert done.returncode == 0, done.stderr
    assert watched.left() == []


def test_what_a_build_imports_asks_nobody(watched: Watched, tmp_path: Path) -> None:
    script = tmp_path / "build.py"  # a file, because workers import it
    script.write_text(BUILD)
    done = watched.run(str(script))
    assert done.returncode == 0, done.stderr
    assert watched.left() == []


IMPORT = "import edgekit, openvino.tools.ovc, time; time.sleep(1.5)"


def test_the_recorder_sees_what_openvino_asks_left_alone(watched: Watched) -> None:
    assert watched.run("-c", IMPORT.replace("edgekit, ", "")).returncode == 0
    assert any("google-analytics" in line for line in watched.left())


def test_who_has_agreed_to_it_keeps_it(watched: Watched) -> None:
    consent = watched.home / "intel" / "openvino_telemetry"
    consent.parent.mkdir()
    consent.write_text("1")
    assert watched.run("-c", IMPORT).returncode == 0
    assert any("google-analytics" in line for line in watched.left())
