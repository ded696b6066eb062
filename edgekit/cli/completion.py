"""``edgekit completion``: completes commands and options in the user's shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console
from edgekit.core.documents import Document


@dataclass(frozen=True)
class CompletionScript(Document):
    """A script to run in the shell that it is for."""

    SCHEMA: ClassVar = 1

    shell: str
    script: str


@click.command(
    cls=Command,
    prints=("completion",),
    short_help="Print a completion script for your shell.",
    examples="""
    eval "$(edgekit completion bash)"
    edgekit completion fish > ~/.config/fish/completions/edgekit.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(console: Console, shell: str) -> None:
    """Print a script that completes edgekit's commands and options in your shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    script = kind(root, {}, "edgekit", "_EDGEKIT_COMPLETE").source()
    console.document(CompletionScript(shell, script))
    console.text(script)
