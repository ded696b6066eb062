"""The gate's options, shared by build, bench and parity: budgets, --summary and --junit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgekit.cli.common import OutputFile
from edgekit.core.console import Console
from edgekit.core.errors import GateFailed, UsageError
from edgekit.core.files import read_regular, real_path, write_bytes, write_text
from edgekit.core.typed_toml import read_toml
from edgekit.metrics.budgets import BUDGETS, Budgets, LeftOut, judged_by, option

if TYPE_CHECKING:
    from edgekit.report.gate import GateReport

F = TypeVar("F", bound=Callable[..., None])

# `max_drop` has no option of this name: build and parity have --tolerance for it, and --max-drop
# of build has always been the limit of accuracy control.
OPTIONS: Final = tuple(name for name in BUDGETS if name != "max_drop")
_HELP: Final = {
    "min_agreement": "Budget: least share of equal top-1 answers, a fraction.",
    "max_scores_rms": "Budget: how far scores are off, a fraction of their RMS.",
    "max_latency_ratio": "Budget: latency over the float model's, in the same run.",
    "max_ms": "Budget: median latency in ms, on --device.",
    "max_mb": "Budget: megabytes of the bundle's files.",
    "max_memory_mb": "Budget: most memory in use, in megabytes.",
    "max_cold_start_ms": "Budget: ms from a process's start to its first prediction.",
    "max_regression": "Budget: points of corruption error lost since --baseline.",
    "max_slowdown": "Budget: latency over that of the bundle of --baseline.",
}
OF_BENCH: Final = dict.fromkeys(
    ("max_latency_ratio", "max_ms", "max_memory_mb", "max_cold_start_ms", "max_slowdown"),
    "'edgekit bench' measures it",
)
OF_PARITY: Final = dict.fromkeys(
    ("max_drop", "min_agreement", "max_scores_rms", "max_regression"),
    "'edgekit parity' measures it",
)


@dataclass(frozen=True)
class _File:
    """The file that --budgets names."""

    budgets: Budgets


@dataclass(frozen=True)
class Gate:
    """What the user demands of a command's results, and where the outcome is written."""

    options: Budgets
    shared: Budgets
    summary: Path | None
    junit: Path | None

    def judged(self, unable: Mapping[str, str]) -> tuple[Budgets, tuple[LeftOut, ...]]:
        """The budgets to judge; ``unable`` says which ones this command cannot, and why."""
        return judged_by(self.options, self.shared, unable)

    def check(self, bundles: Sequence[Path], **others: Path | None) -> None:
        """Refuse files that would be written over each other or a bundle, or cannot be added to.

        ``others`` are the command's other outputs.
        """
        named = {"summary": self.summary, "junit": self.junit, **others}
        given = {f"--{name}": path for name, path in named.items() if path is not None}
        places: dict[Path, str] = {}
        for name, path in given.items():
            other = places.setdefault(real_path(path), name)
            if other != name:
                raise UsageError(f"{other} and {name} both write {path}: name two files")
        for name, path in given.items():
            _check_outside(name, real_path(path), bundles)
        if self.summary is not None:
            _text(self.summary)

    def write(self, report: GateReport, console: Console) -> None:
        """Write the files; a summary keeps what else is in it."""
        from edgekit.report.junit import to_junit
        from edgekit.report.markdown import add_section

        if self.summary is not None:
            write_text(self.summary, add_section(_text(self.summary), report))
            console.info(f"summary: wrote {self.summary}")
        if self.junit is not None:
            write_bytes(self.junit, to_junit(report))
            console.info(f"junit: wrote {self.junit}")


def gate_options(*judged: str) -> Callable[[F], F]:
    """Give a command the gate's options; budgets that it never judges are not in its help."""

    def decorate(command: F) -> F:
        file = OutputFile()
        command = click.option("--junit", type=file, help="Write the outcome as JUnit XML.")(
            command
        )
        command = click.option(
            "--summary", type=file, help="Add the outcome to this file, as Markdown."
        )(command)
        for name in reversed(OPTIONS):
            command = click.option(
                option(name), type=float, help=_HELP[name], hidden=name not in judged
            )(command)
        path = click.Path(path_type=Path)
        return click.option("--budgets", type=path, help="TOML file with a table [budgets].")(
            command
        )

    return decorate


def take_gate(options: dict[str, Any]) -> Gate:
    """Remove the gate's options from those of a command."""
    file: Path | None = options.pop("budgets")
    given = Budgets(**{name: options.pop(name) for name in OPTIONS})
    shared = Budgets() if file is None else read_toml(file, _File).budgets
    return Gate(given, shared, options.pop("summary"), options.pop("junit"))


def fail_unless_held(report: GateReport, why: str = "") -> None:
    """Exit with 3, and with every budget that is broken or undecided, unless all are held."""
    if report.state != "held":
        raise GateFailed(why or report.failure())


def _check_outside(name: str, path: Path, bundles: Sequence[Path]) -> None:
    if any(real_path(bundle) in (path, *path.parents) for bundle in bundles):
        raise UsageError(f"{name} {path} is the bundle or inside it: name a place beside it")


def _text(path: Path) -> str:
    """The present content of a summary."""
    if not path.exists():
        return ""
    try:
        return read_regular(path).decode("utf-8")
    except OSError as error:
        raise UsageError(f"--summary: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--summary {path} holds no UTF-8 text: name another file") from error
