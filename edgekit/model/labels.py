"""Class names from a text file."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.errors import UsageError
from edgekit.core.files import read_regular


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names from a text file, one per line; trailing blank lines are ignored."""
    try:
        lines = read_regular(path).decode("utf-8").rstrip().splitlines()
    except OSError as error:
        raise UsageError(f"cannot read labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"labels {path}: not UTF-8 text") from error
    names = tuple(line.strip() for line in lines)
    if not names:
        raise UsageError(f"labels {path}: the file is empty, expected one class name per line")
    for number, name in enumerate(names, start=1):
        if not name:
            raise UsageError(f"labels {path}:{number}: empty line, expected a class name")
    return names
