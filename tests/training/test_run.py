"""Training runs: reproducible, resumable, honest about what was seen."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from edgekit.cli.train import train as train_command
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, Interrupted, UsageError
from edgekit.core.files import file_sha256
from edgekit.core.progress import ProgressBar
from edgekit.core.typed_toml import to_toml
from edgekit.model.checkpoint import load_checkpoint
from edgekit.training.builtin_model import train_builtin
from edgekit.training.config import TrainConfig
from edgekit.training.run import run_training
from edgekit.training.run_log import read_run
from tests.training.training_data import (
    CLASSES,
    QUIET,
    frozen_config,
    image_config,
    write_backbone,
)

RUN = """
import sys
from contextlib import ExitStack
from pathlib import Path
from edgekit.training.run import run_training
from edgekit.core.typed_toml import read_toml
from edgekit.training.config import TrainConfig
from edgekit.core.console import Console
if __name__ == "__main__":
    run_training(read_toml(Path(sys.argv[1]), TrainConfig), Console(verbosity=-1))
"""


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_frozen_run_learns_and_its_checkpoint_says_what_was_seen(tmp_path: Path) -> None:
    result = run_training(frozen_config(tmp_path, epochs=8), QUIET)
    assert result.validation.clean_error <= 0.2
    assert result.validation.images == 15
    assert result.seen == ("gaussian_noise", "contrast")
    assert set(result.validation.corruption_errors) == set(result.seen)
    for path in (result.best, result.last):
        card = load_checkpoint(path).card
        assert card.classes == CLASSES
        assert card.training.seen == result.seen
        assert card.training.data == str(tmp_path / "levels.npz")
        assert card.preprocessing.size == (32, 32)
        assert card.vqsa.codebook_size == 12
    epochs = [entry for entry in log_of(result.out) if entry["event"] == "epoch"]
    assert [entry["epoch"] for entry in epochs] == list(range(1, 9))
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert 1 <= epochs[-1]["perplexity"] <= 12
    # The best epoch is the first with the lowest criterion.
    criteria = [entry["validation"]["mean_corruption_error"] for entry in epochs]
    assert result.best_epoch == 1 + criteria.index(min(criteria))
    # What `edgekit compare` reads is what the run said.
    logged = read_run(result.out)
    assert (logged.best_epoch, logged.epochs) == (result.best_epoch, result.epochs)
    assert logged.best == result.validation
    assert logged.checkpoint == file_sha256(result.best)
    assert logged.config.out == result.out


def test_one_seed_gives_one_set_of_weights_whatever_the_workers(tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        config = frozen_config(
            tmp_path, out=tmp_path / name, cache=tmp_path / f"features-{name}", workers=workers
        )
        run_training(config, QUIET)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    run_training(frozen_config(tmp_path, out=tmp_path / "c", seed=1), QUIET)
    assert not torch.equal(
        weights(tmp_path / "a")["head.fuse.weight"], weights(tmp_path / "c")["head.fuse.weight"]
    )


def test_both_phases_of_image_training_repeat_too(tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        config = frozen_config(
            tmp_path,
            out=tmp_path / name,
            workers=workers,
            epochs=1,
            finetune_epochs=1,
            augment="crop",
            pairing="sampled",
            head="residual",
            quantizer_start=1,
            codebook_update="ema",
            optimizer="adamw",
            lr=0.001,
            precision="bf16",
        )
        run_training(config, QUIET)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    trained, start = weights(tmp_path / "a"), load_file(tmp_path / "resnet18.safetensors")
    assert not torch.equal(trained["backbone.conv1.weight"], start["backbone.conv1.weight"])
    # The second phase keeps the statistics that the weights came with.
    assert torch.equal(trained["backbone.bn1.running_mean"], start["backbone.bn1.running_mean"])


def test_codewords_that_join_late_learn_too(tmp_path: Path) -> None:
    changes = {"epochs": 2, "quantizer_start": 1, "kmeans": False, "reset_dead_codes": False}
    rates = {"a": 0.02, "b": 0.01}
    for name, lr in rates.items():
        run_training(frozen_config(tmp_path, out=tmp_path / name, lr=lr, **changes), QUIET)
    codewords = [weights(tmp_path / name)["head.codebook.embeddings"] for name in rates]
    assert not torch.equal(*codewords)


@pytest.mark.parametrize("steps", [3, 4])  # within an epoch of 4, and at its end
def test_ctrl_c_saves_and_the_next_call_goes_on_bit_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole = frozen_config(tmp_path, out=tmp_path / "whole")
    run_training(whole, QUIET)
    config = frozen_config(tmp_path, out=tmp_path / "cut")
    advance = ProgressBar.advance
    calls = 0

    def advance_and_interrupt(bar: ProgressBar, count: int = 1, figures: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls == steps - 1:  # noticed in the next step
            signal.raise_signal(signal.SIGINT)
        advance(bar, count, figures)

    monkeypatch.setattr(ProgressBar, "advance", advance_and_interrupt)
    with pytest.raises(Interrupted):
        run_training(config, QUIET)
    assert calls == steps
    monkeypatch.setattr(ProgressBar, "advance", advance)
    run_training(config, QUIET)
    for name in ("last", "best"):
        assert_same(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    logs = [log_of(tmp_path / name) for name in ("whole", "cut")]
    for log in logs:
        for entry in log:
            entry.pop("seconds", None)
    assert logs[0] == logs[1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_kill_9_and_resume_is_bit_exact(tmp_path: Path) -> None:
    """Everything learns here: batch norm statistics, a late codebook and its counts as well."""
    common = {"quantizer_start": 1, "epochs": 3, "codebook_update": "ema", "head": "residual"}
    whole = image_config(tmp_path, out=tmp_path / "whole", **common)
    run_training(whole, QUIET)
    cut = image_config(tmp_path, out=tmp_path / "cut", save_every=0.0, **common)
    (tmp_path / "cut.toml").write_text(to_toml(cut))
    (tmp_path / "run.py").write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path / "cut.toml"], env=environment()
    )
    log = tmp_path / "cut" / "log.jsonl"
    while process.poll() is None and not (log.exists() and '"epoch"' in log.read_text()):
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert len(log_of(tmp_path / "cut")) < 4, "it was to be killed before its last epoch"
    run_training(cut, QUIET)
    for name in ("last", "best"):
        assert_same(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))


def test_two_machines_train_what_one_does(tmp_path: Path) -> None:
    """Batch norm, k-means, dead codes, clipping, averaging and methods included.

    Each has its own torchrun, started as the documentation says; here both are this machine.
    """
    # Few and small steps: training amplifies rounding, and a code may flip.
    common = {"head": "concat", "clip_norm": 1.0, "lr": 0.002, "batch_size": 24}
    common |= {"weights": str(write_backbone(tmp_path)), "freeze": False}
    common |= {"preserve": 0.5, "denoise": 1.0}
    run_training(image_config(tmp_path, out=tmp_path / "one", **common), QUIET)
    config = image_config(tmp_path, out=tmp_path / "two", **common)
    (tmp_path / "two.toml").write_text(to_toml(config))
    (tmp_path / "run.py").write_text(RUN)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    script = [str(tmp_path / "run.py"), str(tmp_path / "two.toml")]
    with ExitStack() as stack:
        machines = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, "--node-rank", str(rank), *script],
                    env=environment(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            for rank in (0, 1)
        ]
        printed = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], printed
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=2e-3, atol=1e-3, msg=name)
    one_log, two_log = log_of(tmp_path / "one")[1:], log_of(tmp_path / "two")[1:]
    for a, b in zip(one_log, two_log, strict=True):
        for name in ("loss", "preserve", "denoise"):
            assert a[name] == pytest.approx(b[name], rel=1e-3)
        assert a["perplexity"] == pytest.approx(b["perplexity"], rel=0.02)


def test_loss_that_is_not_finite_stops_with_the_batch(tmp_path: Path) -> None:
    config = frozen_config(tmp_path, lr=1e30, clip_norm=0.0, optimizer="sgd")
    with pytest.raises(EdgekitError, match=r"epoch 1, batch \d+ \(images train/\d+, .*--lr"):
        run_training(config, QUIET)
    assert log_of(config.out)[-1]["event"] == "broken"
    assert len(log_of(config.out)[-1]["images"]) == 12


def test_another_run_in_the_folder_is_refused_unless_restarted(tmp_path: Path) -> None:
    config = frozen_config(tmp_path, epochs=1)
    run_training(config, QUIET)
    before = weights(config.out)
    again = run_training(frozen_config(tmp_path, epochs=1, workers=1), QUIET)  # a bystander
    assert again.best_epoch == 1
    assert_same(before, weights(config.out))
    other = frozen_config(tmp_path, epochs=1, lr=0.01)
    with pytest.raises(UsageError, match=r"lr: 0\.01, was 0\.02.*--restart"):
        run_training(other, QUIET)
    run_training(other, QUIET, restart=True)
    assert not torch.equal(before["head.fuse.weight"], weights(config.out)["head.fuse.weight"])


def test_early_stopping(tmp_path: Path) -> None:
    config = frozen_config(tmp_path, epochs=9, patience=2, lr=1e-12, kmeans=False, ema=0.0)
    result = run_training(config, QUIET)
    assert result.stopped_early
    assert result.best_epoch == 1
    assert len([entry for entry in log_of(config.out) if entry["event"] == "epoch"]) == 3


def test_bad_images_are_left_out_and_counted(tmp_path: Path) -> None:
    config = frozen_config(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("calibration", 2), ("test", 2)):
        for name in ("a", "b"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    broken = tmp_path / "photos" / "train" / "a" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    changes = {"data": str(tmp_path / "photos"), "batch_size": 4, "epochs": 1}
    frozen = run_training(TrainConfig(**{**vars(config), **changes}), QUIET)
    assert frozen.skipped_images == 1
    changes |= {"weights": "none", "image_size": 32, "out": tmp_path / "whole"}
    assert run_training(TrainConfig(**{**vars(config), **changes}), QUIET).skipped_images == 1


def test_training_goes_on_from_a_checkpoint_with_its_head(tmp_path: Path) -> None:
    first = run_training(frozen_config(tmp_path, epochs=8), QUIET)
    config = frozen_config(
        tmp_path, out=tmp_path / "more", epochs=1, weights=str(first.best), lr=1e-9, ema=0.0
    )
    more = run_training(config, QUIET)
    assert more.validation == first.validation


def test_built_in_model_is_trained_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = frozen_config(tmp_path, epochs=1, cache=None)
    path = train_builtin(tmp_path / "cache", QUIET, config)
    content = path.read_bytes()
    assert load_checkpoint(path).card.training.seen == ("gaussian_noise", "contrast")
    monkeypatch.setattr("edgekit.training.run.run_training", None)  # not called again
    assert train_builtin(tmp_path / "cache", QUIET, config) == path
    monkeypatch.undo()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # found by its hash, trained again
    assert train_builtin(tmp_path / "cache", QUIET, config).read_bytes() == content


def test_command_line_wins_over_its_file_and_prints_one_document(tmp_path: Path) -> None:
    config = frozen_config(tmp_path, epochs=7, seen="fog")
    (tmp_path / "run.toml").write_text(to_toml(config))
    arguments = ["--config", str(tmp_path / "run.toml"), "--epochs", "1", "--json", "--quiet"]
    done = CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    document = json.loads(done.stdout)
    assert document["epochs"] == 1
    assert document["seen"] == ["fog"]
    assert Path(document["best"]).exists()
    assert document["validation"]["corruption_errors"].keys() == {"fog"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "none", "freeze": True}, "--no-freeze"),
        ({"augment": "flip"}, "augment"),
        ({"weights": "none", "finetune_epochs": 1}, "finetune_epochs"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"device": "tpu"}, "tpu"),
        ({"seen": "fogg"}, "did you mean 'fog'"),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_training(frozen_config(tmp_path, **changes), QUIET)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    images = np.zeros((6, 32, 32, 3), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None]
    data = tmp_path / "one.npz"
    np.savez(data, images=images, labels=np.zeros(6, int), classes=np.array(["cat"]))
    with pytest.raises(UsageError, match="has one class, 'cat'"):
        run_training(frozen_config(tmp_path, data=str(data)), QUIET)
    assert not (tmp_path / "run").exists()


def test_what_the_test_images_can_decide_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = frozen_config(tmp_path, epochs=1, seen="contrast")
    run_training(config, Console(), tolerance=0.5)
    lines = capsys.readouterr().err.splitlines()
    said = next(i for i, line in enumerate(lines) if "15 test images decide to about" in line)
    assert said < next(i for i, line in enumerate(lines) if "epoch 1:" in line)
