"""Error messages for commands that fail on a device."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from edgekit.core.errors import EdgekitError, error_of

_LONGEST_REASON: Final = 1000  # characters of a device's output


def remote_failure(name: str, code: int, lines: Sequence[str]) -> EdgekitError:
    """The error for a command that failed on a device, from its exit code and output."""
    if code < 0:
        why = ": it may be out of memory" if -code == signal.SIGKILL else ""
        return EdgekitError(f"{name}: the process there was killed by signal {-code}{why}")
    return error_of(code, f"{name}: {reason(lines)}")


def reason(lines: Sequence[str]) -> str:
    """The line that says why a command there failed."""
    errors = [line for line in lines if line.startswith("error: ")]
    line = (errors or lines or ["it failed without a message"])[-1].removeprefix("error: ")
    return line[:_LONGEST_REASON]
