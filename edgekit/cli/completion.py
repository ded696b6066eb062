"""``edgekit completion``: completes commands and options in the user's shell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.documents import Document
from edgekit.core.errors import UsageError
from edgekit.core.shell_files import SHELLS, Change, Shell, completion_file, login_shell


@dataclass(frozen=True)
class CompletionScript(Document):
    """A script to run in the shell that it is for."""

    SCHEMA: ClassVar = 1

    shell: str
    script: str


@dataclass(frozen=True)
class CompletionInstall(Document):
    """What was done to the one file that the shell reads."""

    SCHEMA: ClassVar = 1

    shell: Shell
    path: Path
    change: Change
    to_do: str
    """What the shell's own settings still need; empty if nothing."""


@click.command(
    cls=Command,
    prints=("completion", "completion-install"),
    short_help="Install completion in your shell, or print it.",
    examples="""
    edgekit completion --install
    edgekit completion fish --install
    edgekit completion --uninstall
    eval "$(edgekit completion bash)"
    """,
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Write the script where the shell looks for it.")
@click.option("--uninstall", is_flag=True, help="Remove that file.")
@common
def completion(console: Console, shell: Shell | None, install: bool, uninstall: bool) -> None:
    """Complete edgekit's commands and options in your SHELL: the one in $SHELL, if not named.

    --install writes one file into your own folder for completions, and says which; it edits no
    settings. Run it again after an update of edgekit. Without it the script is printed.
    """
    if install and uninstall:
        raise UsageError("--install and --uninstall exclude each other: choose one")
    if shell is None and not (install or uninstall):
        raise UsageError(
            "name the shell whose script to print (bash, zsh, fish), or install it with --install"
        )
    chosen = shell or login_shell()
    if not (install or uninstall):
        script = CompletionScript(chosen, _script(chosen))
        console.document(script)
        console.text(script.script)
        return
    file = completion_file(chosen)
    to_do = file.to_do() if install else ""  # before anything is written: it may fail
    change = file.install(_script(chosen)) if install else file.uninstall()
    done = CompletionInstall(chosen, file.path, change, to_do)
    console.document(done)
    console.text(_WORDS[change].format(file.path))
    if done.to_do:
        console.prose(done.to_do)
    elif install:
        console.info(f"a new {chosen} completes edgekit")


_WORDS: dict[Change, str] = {
    "written": "wrote {}",
    "updated": "updated {}",
    "unchanged": "{} is there already, unchanged",
    "removed": "removed {}",
    "absent": "nothing to remove: there is no {}",
}


def _script(shell: Shell) -> str:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    return kind(root, {}, "edgekit", "_EDGEKIT_COMPLETE").source()
