"""What every command of ``edgekit`` shares: examples in its help, --json, -v and -q."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.core.packages import require

F = TypeVar("F", bound=Callable[..., None])


class Command(click.Command):
    """A command whose examples are shown verbatim under its options.

    ``needs`` are packages without which it does not begin.
    """

    def __init__(
        self, *args: Any, examples: str = "", needs: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.needs = tuple(needs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, if what it needs is there."""
        require(self.needs, ctx.command_path)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then click's own epilog."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(" " * formatter.current_indent + line.strip() + "\n")
        super().format_epilog(ctx, formatter)


def common(command: F) -> F:
    """Give a command --json, -v and -q, and hand it one `Console`."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
    @click.option("-v", "--verbose", count=True, help="Say more; repeatable.")
    @click.option("-q", "--quiet", is_flag=True, help="Only results, warnings and errors.")
    @functools.wraps(command)
    def with_console(as_json: bool, verbose: int, quiet: bool, **options: Any) -> None:
        command(console=Console(as_json, -1 if quiet else verbose), **options)

    return with_console  # type: ignore[return-value] # the options are consumed above


def raise_failures(failures: Sequence[tuple[str, EdgekitError]]) -> None:
    """Raise what happened on devices as one error, whose exit code is the worst."""
    if not failures:
        return
    worst = max((error for _, error in failures), key=lambda error: error.exit_code)
    if len(failures) == 1:
        raise worst
    from edgekit.devices.failures import failure

    texts = [str(e) if name in str(e) else f"{name}: {e}" for name, e in failures]
    raise failure(worst.exit_code, f"{len(failures)} devices failed: {'; '.join(texts)}")
