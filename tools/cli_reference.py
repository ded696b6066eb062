"""Write docs/cli.md, the reference of the command line, from the commands themselves.

    python -m tools.cli_reference

A test fails if the page and the commands differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from edgekit.cli.main import cli

PAGE = Path(__file__).parents[1] / "docs/cli.md"
_HEAD = """\
# Command line

<!-- Written by `make docs`; change the commands, not this page. -->

Every command takes `--json` (one document on stdout, [described by a schema](json.md)), `-v`, `-q`
and `--help`.
Exit codes are the same everywhere: [troubleshooting](troubleshooting.md#by-exit-code).
"""
_EVERYWHERE = {"as_json", "verbose", "quiet"}  # in the head of the page


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_section(cli, "edgekit")]).rstrip() + "\n"


def _section(command: click.Command, path: str) -> Iterator[str]:
    """A command's section, then those of its subcommands."""
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield f"## {path}\n"
    yield f"```\n{usage}\n```\n"
    for paragraph in (command.help or "").strip().split("\n\n"):
        yield _paragraph(paragraph)
    help_option = command.get_help_option(context)  # its names depend on who called first
    options = [
        _option(option, context)
        for option in command.get_params(context)
        if option is not help_option
    ]
    if shown := [line for line in options if line]:
        yield "\n".join(shown) + "\n"
    if examples := getattr(command, "examples", "").strip():
        lines = "\n".join(line.strip() for line in examples.splitlines())
        yield f"```\n{lines}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _section(inner, f"{path} {name}")


def _paragraph(text: str) -> str:
    """One paragraph of a help text; click leaves one that begins with a backspace as it is."""
    lines = text.splitlines()
    if lines and lines[0].strip() == "\b":
        kept = "\n".join(line.strip() for line in lines[1:] if line.strip() != "Examples:")
        return f"```\n{kept}\n```\n"
    return " ".join(line.strip() for line in lines) + "\n"


def _option(option: click.Parameter, context: click.Context) -> str:
    """A line of the list, as --help describes the option; nothing for what all commands have.

    Some releases of click describe arguments here, too; they are in the usage line.
    """
    record = option.get_help_record(context)
    if record is None or option.name in _EVERYWHERE or isinstance(option, click.Argument):
        return ""
    names, text = record
    return f"- `{names}`: {' '.join(text.split())}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
