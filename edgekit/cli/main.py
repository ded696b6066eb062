"""The ``edgekit`` command: its subcommands, and the exit code of every outcome.

This package holds no logic, and imports nothing heavy before a command needs it.
"""

from __future__ import annotations

import errno
import re
import signal
import sys
import tempfile
import threading
from types import FrameType
from typing import Any, NoReturn

import click

from edgekit import __version__
from edgekit.cli.common import Group, Invocation
from edgekit.core.console import (
    Console,
    document_printed,
    expect_document,
    set_up_streams,
    shortened,
)
from edgekit.core.documents import Failure
from edgekit.core.errors import EdgekitError, TheirCodeError, ToolchainMissing, UsageError
from edgekit.core.packages import missing
from edgekit.core.typed_toml import meant

_EXIT_CODES = """\b
Exit codes:
  0    done and passed
  1    a step failed
  2    wrong usage or input
  3    a parity gate failed or is undecided
  4    a toolchain or runtime is missing
  5    a device is unreachable
  130  interrupted; a rerun resumes"""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Even to ask whether there is such a file is an error, or it is a pipe, a device or a folder.
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP, errno.EINVAL, errno.EISDIR)


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.version_option(__version__, prog_name="edgekit")
@click.pass_context
def cli(context: click.Context) -> None:
    """Robust image classifiers on the edge: VQ-SA from checkpoint to INT8, robustness proven.

    \b
    Examples:
      edgekit build                      built-in model and images, this CPU
      edgekit build --checkpoint best.pth --data ./photos
      edgekit predict build/cpu photo.jpg
      edgekit doctor                     what this machine can build
      edgekit COMMAND --help             options and examples of a command
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _add_commands() -> None:
    """Every command; its module imports nothing heavy either."""
    from edgekit.cli.bench import bench
    from edgekit.cli.build import build
    from edgekit.cli.cache import cache
    from edgekit.cli.calibrate import calibrate
    from edgekit.cli.check import check
    from edgekit.cli.compare import compare
    from edgekit.cli.completion import completion
    from edgekit.cli.deploy import deploy
    from edgekit.cli.device import device
    from edgekit.cli.doctor import doctor
    from edgekit.cli.export import export
    from edgekit.cli.finetune import finetune
    from edgekit.cli.inspect import inspect
    from edgekit.cli.parity import parity
    from edgekit.cli.predict import predict
    from edgekit.cli.report import report
    from edgekit.cli.schema import schema
    from edgekit.cli.sign import sign, verify
    from edgekit.cli.targets import targets
    from edgekit.cli.train import train
    from edgekit.cli.watch import watch

    for command in (
        *(
            bench,
            build,
            cache,
            calibrate,
            check,
            compare,
            completion,
            deploy,
            device,
            doctor,
            export,
            finetune,
        ),
        *(inspect, parity, predict, report, schema, sign, targets, train, verify, watch),
    ):
        cli.add_command(command)


_add_commands()


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every foreseen failure is one line on stderr and an exit code."""
    invocation = Invocation()
    expect_document()
    set_up_streams()
    before = _stop_at(signal.SIGTERM)
    try:
        cli.main(arguments, prog_name="edgekit", standalone_mode=False, obj=invocation)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; finished work is kept, run the same command to resume", 130, invocation)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "edgekit"
        message = " ".join(error.format_message().split())
        if hint := _meant(error):
            message = message.rstrip(".") + hint
        _fail(f"{message} (see '{command} --help')", UsageError.exit_code, invocation)
    except click.ClickException as error:
        _fail(error.format_message(), UsageError.exit_code, invocation)
    except EdgekitError as error:
        if invocation.verbose and isinstance(error, TheirCodeError):
            Console().traceback(error.__cause__ or error)
        _fail(str(error), error.exit_code, invocation)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno in _NO_ROOM:
            _fail(_no_room(error), EdgekitError.exit_code, invocation)
        if error.errno not in _NO_SUCH_NAME or error.filename is None:
            raise
        _fail(
            f"{error.filename}: {error.strerror}: name another file or folder",
            UsageError.exit_code,
            invocation,
        )
    except ModuleNotFoundError as error:  # from an extra; commands check their own needs earlier
        package = (error.name or "").split(".")[0]
        if package in ("", "edgekit"):
            raise
        _fail(str(missing(package, "this")), ToolchainMissing.exit_code, invocation)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    sys.exit(0)


def _meant(error: click.UsageError) -> str:
    """What a word that is none of an option's choices may have been meant to be."""
    kind = getattr(getattr(error, "param", None), "type", None)
    word = re.match(r"'(.*)' is not one of", error.message)
    return meant(word[1], kind.choices) if word and isinstance(kind, click.Choice) else ""


def _no_room(error: OSError) -> str:
    """Where a disk is full. What has no name of its own is written to the temporary folder."""
    where = error.filename or f"to the temporary folder {tempfile.gettempdir()}"
    return (
        f"cannot write {where}: {error.strerror}: make room (or name another folder for temporary "
        "files with TMPDIR), then run the same command again"
    )


def _stop_at(number: int) -> Any:
    """Treat that signal like Ctrl-C; the former handler, where handlers can be set."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int, invocation: Invocation) -> NoReturn:
    if invocation.as_json and not document_printed():
        Console(as_json=True).document(Failure(shortened(message), code))
    Console().error(message)
    sys.exit(code)


if __name__ == "__main__":
    main()
