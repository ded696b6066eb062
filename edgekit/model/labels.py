"""Class names from a file: a line each, or the index files of ImageNet's tools."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.documents import parse_json
from edgekit.core.errors import UsageError
from edgekit.core.files import read_regular


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names from a text file, one per line, or from a .json file.

    In JSON they are a list, or an object from index to name, or to identifier and name as in
    imagenet_class_index.json. Trailing blank lines are ignored.
    """
    try:
        text = read_regular(path).decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read labels {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"labels {path}: not UTF-8 text") from error
    if path.suffix.lower() == ".json":
        return _from_json(text, path)
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names:
        raise UsageError(f"labels {path}: the file is empty, expected one class name per line")
    for number, name in enumerate(names, start=1):
        if not name:
            raise UsageError(f"labels {path}:{number}: empty line, expected a class name")
    return names


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    found = parse_json(text, f"labels {path}")
    if isinstance(found, dict):
        due = [str(index) for index in range(len(found))]
        missing = next((index for index in due if index not in found), None)
        if missing is not None:
            raise UsageError(f"labels {path}: no class has the index {missing}")
        found = [found[index] for index in due]
    if not isinstance(found, list) or not found:
        raise UsageError(
            f"labels {path}: expected a list of names, or an object from index to name"
        )
    names = [one[-1] if isinstance(one, list) and one else one for one in found]
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"labels {path}: the class with index {index} has no name")
    return tuple(name.strip() for name in names)
