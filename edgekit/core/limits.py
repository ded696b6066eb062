"""How much memory the content of one file may take.

A few hundred bytes can claim that gigabytes follow, so sizes in headers are checked against this
limit before anything is allocated.
"""

from __future__ import annotations

import os
from typing import Final

from edgekit.core.errors import UsageError

VARIABLE: Final = "EDGEKIT_MAX_FILE_MB"
_DEFAULT_MIB: Final = 1024


def memory_limit() -> int:
    """The limit in bytes; $EDGEKIT_MAX_FILE_MB times 2^20 if set."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return _DEFAULT_MIB << 20
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UsageError(f"{VARIABLE} must be a whole number of MiB, not '{text}'")
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
