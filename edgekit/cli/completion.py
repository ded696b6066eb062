"""``edgekit completion``: completes commands and options in the user's shell."""

from __future__ import annotations

import click

from edgekit.cli.common import Command, common
from edgekit.core.console import Console


@click.command(
    cls=Command,
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
    console.document({"shell": shell, "script": script})
    console.text(script)
