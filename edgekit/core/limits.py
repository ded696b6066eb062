"""How large what others say may be: a number, and the content of one file in memory.

A few hundred bytes can claim that gigabytes follow, so sizes in headers are checked against the
limit before anything is allocated.
"""

from __future__ import annotations

import os
from typing import Final

from edgekit.core.errors import UsageError

LARGEST_NUMBER: Final = 2**63
"""No count, size or time reaches it, and arrays and clocks hold nothing beyond."""
VARIABLE: Final = "EDGEKIT_MAX_FILE_MB"
_DEFAULT_MIB: Final = 1024


def memory_limit() -> int:
    """The limit in bytes; $EDGEKIT_MAX_FILE_MB times 2^20 if set."""
    return mebibytes(VARIABLE, _DEFAULT_MIB)


def mebibytes(variable: str, otherwise: int, *, least: int = 1) -> int:
    """Bytes; the whole number of MiB in an environment variable, or ``otherwise`` of them."""
    text = os.environ.get(variable, "")
    if not text:
        return otherwise << 20
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise UsageError(f"{variable} must be a whole number of MiB, not '{text}'")
    return int(text) << 20


def check_size(
    size: int, what: str, error: type[UsageError] = UsageError, *, hint: str = ""
) -> None:
    """Refuse ``what`` if its ``size`` in memory (bytes) is beyond the limit."""
    limit = memory_limit()
    if size > limit:
        need = -(-size // (1 << 20))
        raise error(
            f"{what} would take {need} MiB of memory, more than {limit >> 20} MiB: {hint}if "
            f"that is right, set {VARIABLE} to more"
        )
