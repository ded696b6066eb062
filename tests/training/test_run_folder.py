"""Whose run a folder holds."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.errors import UsageError
from edgekit.quantize.qat.config import FinetuneConfig
from edgekit.training.config import TrainConfig
from edgekit.training.run_folder import (
    BEST,
    CONFIG,
    LOG,
    STATE,
    RunConfig,
    command_of,
    refuse_other_command,
    refuse_other_run,
    take_folder,
)

FILES = (STATE, LOG, BEST, CONFIG)


def config_for(command: str, out: Path) -> RunConfig:
    return TrainConfig(out=out) if command == "train" else FinetuneConfig(out=out)


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_folder_is_taken_gone_on_in_and_taken_anew(command: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = config_for(command, out)
    assert command_of(out) is None
    take_folder(config, FILES, restart=False)
    assert command_of(out) == command
    (out / STATE).write_bytes(b"state")
    take_folder(config, FILES, restart=False)
    assert (out / STATE).exists()
    take_folder(config, FILES, restart=True)
    assert {path.name for path in out.iterdir()} == {CONFIG}


def test_each_command_refuses_the_others_folder(tmp_path: Path) -> None:
    take_folder(config_for("train", tmp_path), FILES, restart=False)
    refuse_other_command(tmp_path, "train")
    with pytest.raises(UsageError, match="holds a run of 'edgekit train': choose another --out"):
        refuse_other_command(tmp_path, "finetune")


def test_other_settings_are_refused_and_keep_what_is_there(tmp_path: Path) -> None:
    config = TrainConfig(out=tmp_path)
    take_folder(config, FILES, restart=False)
    before = (tmp_path / CONFIG).read_bytes()
    for refuse in (refuse_other_run, lambda other: take_folder(other, FILES, restart=False)):
        with pytest.raises(UsageError, match=r"other settings \(.*seed.*add --restart"):
            refuse(replace(config, seed=config.seed + 1))
    assert (tmp_path / CONFIG).read_bytes() == before


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_state_whose_settings_are_gone_is_nobodys(command: str, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"state")
    with pytest.raises(UsageError, match=f"holds a run without its {CONFIG}: choose another"):
        take_folder(config_for(command, tmp_path), FILES, restart=False)
    assert {path.name for path in tmp_path.iterdir()} == {STATE}
