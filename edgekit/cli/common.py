"""Shared by all commands of ``edgekit``: examples in the help, --json, -v and -q."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError, error_of, one_line
from edgekit.core.limits import LARGEST_NUMBER
from edgekit.core.packages import require
from edgekit.core.tables import Column, Table

F = TypeVar("F", bound=Callable[..., None])

CHECKS = Table.of("what", "status", Column("found", "prose"), Column("what to do", "prose"))
"""What a machine has, this one or a device."""


@dataclass
class Invocation:
    """What is known of the command line before a command runs: click's ``obj``."""

    as_json: bool = False
    verbose: bool = False


def _note_json(ctx: click.Context, params: Sequence[click.Parameter], words: list[str]) -> None:
    """Note whether ``words`` contain --json and -v as options, even if they are invalid otherwise.

    Then the error must be a document, too, and when click fails it has parsed nothing yet.
    """
    invocation = ctx.find_object(Invocation)
    if invocation is None:  # a command called without `edgekit.cli.main`
        return
    flags = {name for flag in params if _takes_no_value(flag) for name in flag.opts}
    # A value given to a flag would end the parsing, and everything after it would be ignored.
    words = [name if (name := word.split("=", 1)[0]) in flags else word for word in words]
    command = click.Command("", params=list(params))
    with click.Context(command, resilient_parsing=True, ignore_unknown_options=True) as aside:
        values, _, _ = command.make_parser(aside).parse_args(words)
    invocation.as_json = bool(values.get("as_json"))
    invocation.verbose = bool(values.get("verbose"))


class OutputFile(click.Path):
    """A file that the command writes; one that cannot be written is refused at once."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path of the file itself, if ``value`` is a link to it."""
        name = "" if param is None else f"{max(param.opts, key=len)} "
        return output_file(Path(str(super().convert(value, param, ctx))), name)


def output_file(path: Path, name: str) -> Path:
    """Where to write ``path``, so that a link stays; ``name`` and it begin an error's message.

    Files are replaced whole, so a device or a folder would be replaced by one: it is refused.
    """
    try:
        file = path.resolve() if path.is_symlink() else path
        if file.exists() and not file.is_file():
            raise UsageError(f"{name}{path} is no regular file: name another one")
        folder = file.parent
        while not folder.exists():
            folder = folder.parent
        writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError) as error:  # a name too long, or links in a circle
        raise UsageError(f"{name}{path} cannot be written: {one_line(error)}") from error
    if not writable:
        raise UsageError(f"{name}{path} cannot be written: {folder} is no folder to write in")
    return file


def _check_number(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Refuse what no count, time or share can be, and what arrays and clocks cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", ctx, parameter)
    if isinstance(value, int | float) and abs(value) >= LARGEST_NUMBER:
        raise click.BadParameter("it must be smaller than 2**63.", ctx, parameter)


def _takes_no_value(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count)


class Command(click.Command):
    """A command whose examples are shown verbatim below its options.

    It does not start without the packages in ``needs``, which ``extra`` installs. ``prints`` names
    the documents that --json may print, as `edgekit schema` knows them.
    """

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        needs: Sequence[str] = (),
        extra: str = "build",
        prints: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.prints = tuple(prints)
        self.needs, self.extra = tuple(needs), extra

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, if the packages it needs are installed."""
        require(self.needs, ctx.command_path, self.extra)
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, and note the form in which to report errors."""
        _note_json(ctx, self.params, args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click's parser does not say whose option it was
            raise
        for parameter in self.params:
            _check_number(ctx, parameter, ctx.params.get(parameter.name or ""))
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then click's own epilog."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(" " * formatter.current_indent + line.strip() + "\n")
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A group whose errors, such as an unknown command, respect --json."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; the command itself, if there is one, decides about --json again."""
        _note_json(ctx, [click.Option(["--json", "as_json"], is_flag=True)], args)
        return super().parse_args(ctx, args)


def common(command: F) -> F:
    """Give a command --json, -v and -q, and pass it a `Console`."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
    @click.option("-v", "--verbose", count=True, help="Print more details; repeatable.")
    @click.option("-q", "--quiet", is_flag=True, help="Only results, warnings and errors.")
    @functools.wraps(command)
    def with_console(as_json: bool, verbose: int, quiet: bool, **options: Any) -> None:
        command(console=Console(as_json, -1 if quiet else verbose), **options)

    return with_console  # type: ignore[return-value] # the options are consumed above


def raise_failures(failures: Sequence[tuple[str, EdgekitError]]) -> None:
    """Raise the failures of several devices as one error, with the highest exit code."""
    if not failures:
        return
    worst = max((error for _, error in failures), key=lambda error: error.exit_code)
    if len(failures) == 1:
        raise worst
    texts = [str(e) if name in str(e) else f"{name}: {e}" for name, e in failures]
    raise error_of(worst.exit_code, f"{len(failures)} devices failed: {'; '.join(texts)}")
