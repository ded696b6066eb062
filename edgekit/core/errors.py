"""Every failure a user can meet, as one class per exit code.

A message is one line: what is wrong, where, and what to do. The command line prints it and
exits with the class's code; a traceback is only ever shown for a bug in edgekit itself.
"""

from __future__ import annotations


class EdgekitError(Exception):
    """A step failed (exit code 1)."""

    exit_code: int = 1


class UsageError(EdgekitError):
    """The user's input is wrong: an option, a file, a value (exit code 2)."""

    exit_code = 2


class TheirCodeError(UsageError):
    """Code that the user brought raised an error, which is the cause; --verbose shows all of it."""


class GateFailed(EdgekitError):
    """A parity gate failed or could not be decided (exit code 3)."""

    exit_code = 3


class ToolchainMissing(EdgekitError):
    """A toolchain or runtime is missing; the message holds the command that installs it (4)."""

    exit_code = 4


class DeviceUnreachable(EdgekitError):
    """A remote device does not answer (exit code 5)."""

    exit_code = 5


class Interrupted(EdgekitError):
    """The user stopped the work; finished state is kept and a rerun resumes (exit code 130)."""

    exit_code = 130


def one_line(error: BaseException, most: int = 200) -> str:
    """What another library's error says, on one line of at most ``most`` characters."""
    return " ".join(str(error).split())[:most]


_BY_EXIT_CODE: dict[int, type[EdgekitError]] = {
    kind.exit_code: kind
    for kind in (UsageError, GateFailed, ToolchainMissing, DeviceUnreachable, Interrupted)
}


def error_of(exit_code: int, message: str) -> EdgekitError:
    """The error for a command that ended elsewhere, from its exit code."""
    return _BY_EXIT_CODE.get(exit_code, EdgekitError)(message)
