"""Fine-tuning runs: resumable to the bit, proven on the way out, usable by the build."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, Interrupted, UsageError
from edgekit.core.files import file_sha256
from edgekit.core.progress import ProgressBar
from edgekit.core.typed_toml import to_toml
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.quantize.qat.record import read_finetuned
from edgekit.quantize.qat.results import Validation
from edgekit.quantize.qat.run_log import INT8
from edgekit.report.compare_runs import compare_runs
from edgekit.report.compared import Measured
from edgekit.steps.artifacts import Checkpoint, Exported, Quantized
from edgekit.steps.bundling import compile_bundle
from edgekit.steps.calibration import legal_onnx, take_finetuned
from edgekit.steps.config import BuildConfig
from edgekit.steps.context import Context
from edgekit.steps.float_model import export, obtain_checkpoint
from edgekit.targets import descriptor as descriptors
from edgekit.targets.descriptor import load_descriptor
from edgekit.training.config import TrainConfig
from edgekit.training.run_folder import BEST
from edgekit.workflows.build import plan
from edgekit.workflows.finetune import finetune
from tests.training.training_data import QUIET, write_data
from tests.workflows.small_build import save_model

RUN = """
import sys
from pathlib import Path

from edgekit.core.console import Console
from edgekit.training.config import TrainConfig
from edgekit.workflows.finetune import finetune
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.core.typed_toml import read_toml

finetune(read_toml(Path(sys.argv[1]), FinetuneConfig), Console(verbosity=-1))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, a checkpoint and a recipe, and a cache that all runs share."""
    folder = tmp_path_factory.mktemp("finetune")
    write_data(folder, train=20, validation=4)
    save_model(folder / "model.safetensors", "fog", "contrast")
    (folder / "tiny.toml").write_text('images = 3\nbias_correction = "none"\n')
    before = os.environ.get("EDGEKIT_CACHE")
    os.environ["EDGEKIT_CACHE"] = str(folder / "cache")
    yield folder
    if before is None:
        del os.environ["EDGEKIT_CACHE"]
    else:
        os.environ["EDGEKIT_CACHE"] = before


def settings(work: Path, out: Path, **changes: object) -> FinetuneConfig:
    values: dict[str, object] = {
        "checkpoint": str(work / "model.safetensors"),
        "data": str(work / "levels.npz"),
        "out": out,
        "recipe": str(work / "tiny.toml"),
        "dialect": "openvino",  # on any machine
        "epochs": 2,
        "batch_size": 9,  # which two processes cannot share equally
        "validation_images": 3,
        "lr": 0.05,
        "workers": 0,
        "threads": 1,
        "device": "cpu",
    }
    return FinetuneConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(work: Path) -> Path:
    """The folder of a run that nobody interrupted."""
    finetune(settings(work, work / "whole"), QUIET)
    return work / "whole"


def log_of(folder: Path) -> list[dict[str, object]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


def assert_same_run(one: Path, two: Path) -> None:
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (one, two)]
    for name, expected in states[0]["model"].items():
        assert torch.equal(expected, states[1]["model"][name]), name
    best = [load_file(folder / BEST) for folder in (one, two)]
    assert best[0].keys() == best[1].keys()
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    assert (one / INT8).read_bytes() == (two / INT8).read_bytes()
    assert log_of(one) == log_of(two)


def test_a_run_and_what_it_leaves(work: Path, whole: Path) -> None:
    again = finetune(settings(work, whole, workers=1), QUIET)  # a bystander; it is finished
    assert again.proof.different_codes == 0
    assert again.proof.logits_error < 1e-3
    assert again.onnx == whole / INT8
    log = log_of(whole)
    assert [entry["event"] for entry in log] == ["start", "epoch", "epoch"]
    assert log[0]["calibrated"] == again.calibrated.to_dict()
    figures = [log[0]["calibrated"], log[1]["validation"], log[2]["validation"]]
    criteria = [Validation(**figure).criterion for figure in figures]  # type: ignore[arg-type]
    assert again.best_epoch == criteria.index(min(criteria))
    assert figures[again.best_epoch] == again.finetuned.to_dict()
    graph, record = read_finetuned(whole / INT8)
    onnx.checker.check_model(graph)
    assert record == again.record
    assert record.seen == ("fog", "contrast")
    assert record.train_images == 20
    assert record.checkpoint == file_sha256(work / "model.safetensors")
    state = torch.load(whole / "state.pt", weights_only=True)["model"]
    moved = [name for name in state if name.startswith("log_scales")]
    assert moved
    assert all(state[name].abs().max() > 0 for name in moved)


def test_ctrl_c_at_an_epochs_end_saves_and_the_next_call_goes_on_bit_exactly(
    work: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(work, tmp_path / "cut")
    advance = ProgressBar.advance
    calls = 0

    def advance_and_interrupt(bar: ProgressBar, count: int = 1, figures: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            signal.raise_signal(signal.SIGINT)
        advance(bar, count, figures)

    monkeypatch.setattr(ProgressBar, "advance", advance_and_interrupt)
    with pytest.raises(Interrupted):
        finetune(config, QUIET)
    assert calls == 2
    assert not (config.out / INT8).exists()
    monkeypatch.undo()
    finetune(config, QUIET)
    assert_same_run(whole, config.out)


def test_kill_9_and_resume_is_bit_exact(work: Path, whole: Path, tmp_path: Path) -> None:
    cut = settings(work, tmp_path / "cut", save_every=0.0)
    (tmp_path / "cut.toml").write_text(to_toml(cut))
    (tmp_path / "run.py").write_text(RUN)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path / "cut.toml"], env=environment
    )
    log = tmp_path / "cut" / "log.jsonl"
    while process.poll() is None and not (log.exists() and '"start"' in log.read_text()):
        time.sleep(0.01)
    time.sleep(0.3)  # some of the few steps
    process.kill()
    process.wait()
    assert not (tmp_path / "cut" / INT8).exists(), "it was to be killed before its end"
    finetune(cut, QUIET)
    assert_same_run(whole, tmp_path / "cut")


def test_two_processes_learn_what_one_does(work: Path, whole: Path, tmp_path: Path) -> None:
    # Saved at every step: the first process then takes over what the other has summed.
    config = settings(work, tmp_path / "two", save_every=0.0)
    (tmp_path / "two.toml").write_text(to_toml(config))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "edgekit", "finetune", "--config", str(tmp_path / "two.toml")]
    done = subprocess.run(
        [*command, "--json", "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # one document: the first process speaks for both
    assert result["proof"]["different_codes"] == 0
    assert Path(result["onnx"]) == config.out / INT8
    states = [torch.load(out / "state.pt", weights_only=True) for out in (whole, config.out)]
    for name, expected in states[0]["model"].items():
        assert torch.allclose(states[1]["model"][name], expected, atol=1e-3), name
    (start, *epochs), (two_start, *two_epochs) = log_of(whole), log_of(config.out)
    assert (start.pop("processes"), two_start.pop("processes")) == (1, 2)
    assert two_start == start
    for one, two in zip(epochs, two_epochs, strict=True):
        assert two["validation"] == one["validation"]
        for name in ("loss", "task", "distill", "code", "feature", "error", "flipped"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name


def test_a_build_takes_the_graph_in_the_place_of_a_calibration(work: Path, whole: Path) -> None:
    config = BuildConfig(
        checkpoint=str(work / "model.safetensors"),
        data=str(work / "levels.npz"),
        quantized=str(whole / INT8),
        target=("onnxruntime-cpu",),
        out=str(work / "build"),
    )
    rows = {step.step: step for step in plan(config, QUIET).steps}
    assert rows["calibrate"].state == "given"
    assert rows["calibrate"].writes == str(whole / INT8)
    context, source = Context(QUIET, Path(os.environ["EDGEKIT_CACHE"])), config.source()
    exported = export(context, obtain_checkpoint(context, source), source)
    descriptor = load_descriptor("onnxruntime-cpu")

    def take(dialect: str, exported: Exported = exported) -> Quantized:
        return take_finetuned(QUIET, exported, whole / INT8, dialect)

    quantized = take(descriptor.dialect)
    assert not quantized.legal  # one scale an activation is ONNX Runtime's own form
    options = config.bundle(descriptor, "key")
    built = compile_bundle(context, quantized, descriptor, options)
    record = read_finetuned(whole / INT8)[1]
    assert built.manifest.sections["finetuned"] == record.to_dict()
    assert built.manifest.source.recipe == record.recipe
    assert "--quantized model-int8.onnx" in built.manifest.rebuild
    assert (built.path / "calibration.json").exists()
    vnni = take("openvino")
    assert vnni.legal
    assert legal_onnx(vnni, work) == whole / INT8
    with pytest.raises(UsageError, match="--dialect openvino-novnni"):
        take("openvino-novnni")
    other = Exported(Checkpoint(Path("b.pth"), "ab" * 32), exported.onnx, exported.card, {})
    with pytest.raises(UsageError, match=r"from another checkpoint .* than b\.pth"):
        take("openvino", other)


def test_two_runs_are_compared(
    work: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_runs(whole, whole).identical
    early = settings(work, tmp_path / "early", epochs=9, patience=1, lr=1e-30, scale_lr=0.0)
    finetune(early, QUIET)
    report = compare_runs(whole, early.out)
    assert ("settings", "patience", "0", "1") in [
        (one.subject, one.name, one.a, one.b) for one in report.differences
    ]
    figures = {one.name: (one.a, one.b) for one in report.figures}
    result = json.loads((whole / "result.json").read_text())
    kept, calibrated = figures["mean corruption error"]
    assert kept is not None
    assert calibrated is not None
    assert kept.value == 100 * result["finetuned"]["mean_corruption_error"]
    assert calibrated.value == 100 * result["calibrated"]["mean_corruption_error"]
    assert figures["best epoch"][1] == Measured(0)
    assert not report.same_model


def test_files_that_are_no_finetuned_graph(work: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*absent"):
        read_finetuned(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match=r"give its model-int8\.onnx"):
        read_finetuned(whole / "calibrated.onnx")
    (tmp_path / "bad.onnx").write_bytes((whole / INT8).read_bytes()[:-1000])
    with pytest.raises(UsageError, match="not an ONNX file, or is damaged"):
        read_finetuned(tmp_path / "bad.onnx")


def test_other_settings_in_the_same_folder_are_refused(work: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match=r"lr: 0\.5, was 0\.05.*--restart"):
        finetune(settings(work, whole, lr=0.5), QUIET)


def test_a_loss_that_is_not_finite_names_the_batch(work: Path, tmp_path: Path) -> None:
    config = settings(work, tmp_path / "nan", lr=1e30, scale_lr=1e30)
    with pytest.raises(EdgekitError, match=r"epoch 1, batch \d \(images train/\d+, .*--scale-lr"):
        finetune(config, QUIET)
    assert log_of(config.out)[-1]["event"] == "broken"


def test_early_stopping_keeps_the_calibrated_network(work: Path, tmp_path: Path) -> None:
    config = settings(work, tmp_path / "early", epochs=9, patience=1, lr=1e-30, scale_lr=0.0)
    result = finetune(config, QUIET)
    assert result.stopped_early
    assert result.best_epoch == 0
    assert result.finetuned == result.calibrated
    assert len(log_of(config.out)) == 2


@pytest.mark.parametrize(
    ("isa", "dialect"), [(("avx2",), "openvino-novnni"), (("avx2", "vnni"), "openvino")]
)
def test_the_dialect_is_the_one_that_build_takes_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    isa: tuple[str, ...],
    dialect: str,
) -> None:
    monkeypatch.setattr(descriptors, "host_arch", lambda: "x86_64")
    monkeypatch.setattr(descriptors, "host_isa", lambda: isa)
    config = FinetuneConfig(out=tmp_path / "out", device="tpu")  # which ends it early
    with pytest.raises(UsageError, match="tpu"):
        finetune(config, Console())
    assert f"dialect {dialect}: " in capsys.readouterr().err
    config.out.mkdir()
    (config.out / "config.toml").write_text(to_toml(dataclasses.replace(config, dialect=dialect)))
    # A run goes on in its dialect, whatever machine it has come to.
    monkeypatch.setattr(descriptors, "host_isa", lambda: ())
    with pytest.raises(UsageError, match="tpu"):
        finetune(config, Console())
    assert "dialect" not in capsys.readouterr().err
    assert load_descriptor("cpu").dialect == "openvino-novnni"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code_weight": -1.0}, "code_weight must be at least 0"),
        ({"code_temperature": 0.0}, "code_temperature must be positive"),
        ({"lr": 0.0, "scale_lr": 0.0}, "nothing would learn"),
        (
            dict.fromkeys(("task_weight", "distill_weight", "code_weight", "feature_weight"), 0.0),
            "there is no loss",
        ),
        ({"dialect": "tensort"}, "did you mean 'tensorrt'"),
        ({"seen": "fogg"}, "did you mean 'fog'"),
        ({"checkpoint": "absent.pth"}, "cannot read checkpoint absent.pth"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_mistakes_are_one_line(
    work: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        finetune(settings(work, tmp_path / "out", **changes), QUIET)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_training_is_neither_resumed_nor_deleted(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.toml").write_text(to_toml(TrainConfig(out=out)))
    (out / "best.safetensors").write_bytes(b"weights")
    for restart in (False, True):
        with pytest.raises(UsageError, match="holds a run of 'edgekit train'"):
            finetune(settings(work, out), QUIET, restart=restart)
    assert {path.name for path in out.iterdir()} == {"config.toml", "best.safetensors"}


def test_a_folder_that_cannot_be_made_is_refused_at_once(work: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = settings(work, tmp_path / "file" / "out", checkpoint="absent.pth")
    with pytest.raises(UsageError, match=r"cannot write .*: name another folder"):
        finetune(config, QUIET)


def test_a_mistake_does_not_delete_the_run_that_it_was_to_replace(work: Path, whole: Path) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    with pytest.raises(UsageError, match="absent"):
        finetune(settings(work, whole, checkpoint="absent.pth"), QUIET, restart=True)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
