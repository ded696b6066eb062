"""A run's folder: what its files are called, and whose it is.

`train` and `finetune` take a free one, or go on in their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Protocol

from edgekit.core.errors import UsageError
from edgekit.core.files import write_text
from edgekit.core.typed_toml import differences, keys_of, read_toml, to_toml

CONFIG: Final = "config.toml"
STATE: Final = "state.pt"
LOG: Final = "log.jsonl"
BEST: Final = "best.safetensors"
_ALWAYS: Final = (STATE, LOG, BEST, CONFIG)

Command = Literal["train", "finetune"]


class RunConfig(Protocol):
    """A run's settings."""

    @property
    def out(self) -> Path:
        """Its folder."""

    def decisive(self) -> dict[str, object]:
        """Those that the result depends on."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def command_of(folder: Path) -> Command | None:
    """Which of the two commands has taken this folder; None if neither has."""
    config = folder / CONFIG
    if not config.exists():
        return None
    return "finetune" if "dialect" in keys_of(config) else "train"


def refuse_other_command(folder: Path, command: Command) -> None:
    """Refuse a folder that the other command has taken: neither resumes nor deletes its files."""
    other = command_of(folder)
    if other not in (None, command):
        raise UsageError(f"{folder} holds a run of 'edgekit {other}': choose another --out")


def refuse_other_run(config: RunConfig) -> None:
    """Refuse a folder with a run of other settings."""
    path = config.out / CONFIG
    if not path.exists():
        if (config.out / STATE).exists():
            raise UsageError(f"{config.out} holds a run without its {CONFIG}: choose another --out")
        return
    different = differences(config.decisive(), read_toml(path, type(config)).decisive())
    if different:
        raise UsageError(
            f"{config.out} holds a run with other settings ({'; '.join(different[:3])}): choose "
            "another --out, or add --restart to start over"
        )


def take_folder(config: RunConfig, others: Iterable[str], *, restart: bool) -> None:
    """Make it this run's folder; with ``restart``, delete what an earlier run left there.

    ``others`` are the files that only runs of this command have.
    """
    if restart:
        for name in (*_ALWAYS, *others):
            (config.out / name).unlink(missing_ok=True)
    else:
        refuse_other_run(config)  # another may have begun since
    path = config.out / CONFIG
    if not path.exists():
        write_text(path, to_toml(config))
