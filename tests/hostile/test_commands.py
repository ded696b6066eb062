"""Commands where something is missing, wrong or ended: one line, its exit code, nothing left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.core.packages import install_command
from edgekit.data.base import Dataset
from edgekit.data.datasets import open_dataset
from edgekit.data.pool import Pool, WorkerBug
from tests import bundles
from tests.data.images import write

# The base install has none of these.
BASE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "nncf", "onnx", "onnxruntime", "openvino", "scipy",
                                  "cv2", "timm", "safetensors", "onnxscript"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from edgekit.cli.main import main
"""
ONE = "main(sys.argv[1:])\n"
# Each argument is a command line: what each said, and its exit code.
EACH = """
import contextlib, io, json
found = []
for words in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main(words.split())
            code = None
        except SystemExit as stop:
            code = stop.code
    found.append([code, said.getvalue()])
print(json.dumps(found))
"""


def base(folder: Path, *words: str, run: str = ONE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BASE + run, *words], cwd=folder,
        env={**os.environ, "EDGEKIT_CACHE": str(folder / "cache")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_base_install_says_what_to_install(tmp_path: Path) -> None:
    commands = [
        "build",
        "build --dry-run",
        "train --data photos",
        "parity photos",
        "export model.pth",
        "calibrate",
        "finetune",
        "check model.onnx",
        "inspect model.pth",
    ]
    (tmp_path / "model.pth").write_bytes(b"x")
    (tmp_path / "model.onnx").write_bytes(b"x")
    write(tmp_path / "photos" / "cat" / "1.png")
    before = sorted(tmp_path.rglob("*"))
    done = base(tmp_path, *commands, run=EACH)
    assert done.returncode == 0, done.stderr
    for words, (code, said) in zip(commands, json.loads(done.stdout), strict=True):
        assert code == 4, (words, said)
        assert said.count("\n") == 1, words
        extra = "parity" if words.startswith("parity") else "build"
        assert f"which is not installed: run {install_command(extra)}" in said, words
    assert sorted(tmp_path.rglob("*")) == before


def test_the_base_install_runs_what_needs_nothing(tmp_path: Path) -> None:
    bundle = bundles.bundle("onnxruntime-cpu")
    assert base(tmp_path, "inspect", str(bundle)).returncode == 0
    assert base(tmp_path, "targets").returncode == 0
    done = base(tmp_path, "predict", str(bundle), "x.png", "--json")
    assert done.returncode == 4
    assert "pip install 'onnxruntime" in json.loads(done.stdout)["error"]


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path: Path) -> None:
    words = ["-m", "edgekit", "bench", str(bundles.bundle("onnxruntime-cpu")), "--baseline", "none"]
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, *words, "--seconds", "60", "-v"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            process.stderr.readline()  # it is at work
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert said.splitlines()[-1].startswith("error: interrupted")
        assert "Traceback" not in said


def test_training_that_cannot_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            write(tmp_path / "data" / split / name / "1.png")
    for data in ("nope", "data"):  # the second is fine, the weights are not
        with pytest.raises(SystemExit) as stop:
            main(["train", "--data", data, "--out", "run", "--weights", "nope.pth"])
        assert stop.value.code == 2
        assert "nope" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["--data nope", "--labels nope", "--recipe nope"])
def test_a_build_is_refused_before_the_built_in_model_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as stop:
        main(["build", *words.split()])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "nope" in said
    assert "training" not in said
    assert not list(tmp_path.iterdir())


class Wanting:
    """What a worker cannot even read."""

    def __reduce__(self) -> tuple[object, ...]:
        return _missing, ()

    def __call__(self, dataset: Dataset, task: int) -> int:
        return task


def _missing() -> object:
    raise RuntimeError("operator x::y does not exist")


def test_a_worker_that_cannot_start_says_why() -> None:
    """It said that a script needs a main guard."""
    with (
        Pool(open_dataset("builtin:fashion-mnist"), Wanting(), 1) as pool,
        pytest.raises(WorkerBug, match=r"cannot start:(.|\n)*operator x::y does not exist"),
    ):
        list(pool.map([1, 2]))


def test_workers_get_timm_models() -> None:
    """torchvision's missing operators were declared in the parent only."""
    pytest.importorskip("torch")
    import torch

    from edgekit.core.errors import ToolchainMissing
    from edgekit.model.backbones.timm import TimmBackbone

    try:
        backbone = TimmBackbone("test_vit")
    except ToolchainMissing as error:
        pytest.skip(str(error))
    assert isinstance(backbone, torch.nn.Module)
    function = Width(backbone)
    with Pool(open_dataset("builtin:fashion-mnist"), function, 1) as pool:
        assert list(pool.map([0])) == [backbone.channels]


class Width:
    def __init__(self, backbone: object) -> None:
        self.backbone = backbone

    def __call__(self, dataset: Dataset, task: int) -> int:
        channels: int = self.backbone.channels  # type: ignore[attr-defined]
        return channels
