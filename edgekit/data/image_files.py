"""Datasets of image files: a folder of class folders, and a list of path and label."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import UsageError
from edgekit.core.typed_toml import nearest
from edgekit.data.base import SPLIT_NAMES, IndexArray
from edgekit.data.decode import BadImage, decode
from edgekit.data.folder import EXTENSIONS, Folder, read_text

_CLASSES: Final = "classes.txt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FileDataset:
    """Labeled image files under ``root``; ``paths`` are relative to it."""

    name: str
    root: Folder
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: IndexArray
    given_splits: Mapping[str, IndexArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, i: int) -> int:
        """The class of image ``i``."""
        return int(self.labels[i])

    def key(self, i: int) -> str:
        """The path of image ``i`` below the root."""
        return self.paths[i]

    def digest(self, i: int) -> str:
        """SHA-256 of the file, as sha256sum prints it."""
        return self.root.digest(self.paths[i])

    def image(self, i: int) -> NDArray[np.uint8]:
        """Decode image ``i``."""
        name = self.root.at(self.paths[i])
        try:
            with self.root.open(self.paths[i]) as stream:
                return decode(stream, name)
        except OSError as error:
            raise BadImage(f"cannot read image {name}: {error.strerror or error}") from error

    def stored(self, i: int) -> bytes:
        """The file of image ``i``."""
        with self.root.open(self.paths[i]) as stream:
            return stream.read()


def open_folder(root: Folder, name: str) -> FileDataset:
    """Open a folder of class folders, or of split folders (train, val, ...) of class folders.

    Labels number the class folders in alphabetical order, unless ``classes.txt`` in the folder
    lists them in another order.
    """
    outer = root.folders()
    splits = [folder for folder in outer if folder.lower() in SPLIT_NAMES]
    if not outer:
        raise UsageError(
            f"{name} has no class folders: put each class's images into a folder of its name"
        )
    if splits and len(splits) < len(outer):
        other = next(folder for folder in outer if folder not in splits)
        raise UsageError(
            f"{name} mixes split folders ('{splits[0]}') and others ('{other}'): "
            f"keep class folders inside the split folders, or use no split folders"
        )
    tops = [f"{split}/" for split in splits] or [""]
    class_folders = {class_ for top in tops for class_ in root.folders(top)}
    folder_names, classes = class_list(root, sorted(class_folders), name)
    label_of = {folder: label for label, folder in enumerate(folder_names)}
    paths: list[str] = []
    labels: list[int] = []
    members: dict[str, list[int]] = {}
    for top in tops:
        first = len(paths)
        for folder in root.folders(top):
            files = list(root.images(f"{top}{folder}"))
            paths.extend(files)
            labels.extend([label_of[folder]] * len(files))
        if top:
            split = SPLIT_NAMES[top[:-1].lower()]
            members.setdefault(split, []).extend(range(first, len(paths)))
    if not paths:
        raise UsageError(f"{name} has no images in its class folders ({', '.join(EXTENSIONS)})")
    for label in sorted(set(range(len(classes))) - set(labels)):
        _log.warning("%s has no images of class '%s'", name, classes[label])
    given = {split: np.array(rows, np.int64) for split, rows in members.items()}
    return FileDataset(name, root, classes, tuple(paths), np.array(labels, np.int64), given)


def open_list(root: Folder, file: str, name: str) -> FileDataset:
    """Open a CSV or JSONL file of ``path``, ``label`` and optionally ``split``.

    Paths are relative to the file's folder. Labels are all names or all numbers; ``classes.txt``
    beside the list gives the order of the names, or the names of the numbers.
    """
    read = _jsonl_rows if file.lower().endswith(".jsonl") else _csv_rows
    rows = list(read(root, file))
    if not rows:
        raise UsageError(f"{name} lists no images: each line needs a path and a label")
    texts = sorted({row.label for row in rows})
    if all(text.isascii() and text.isdecimal() for text in texts):
        longest = max(texts, key=len)
        highest = max(map(int, texts)) if len(longest) < 20 else 1 << 64
        if highest > 1_000_000:
            raise UsageError(f"{name}: label {longest[:20]} is too large for a class number")
        _, classes = class_list(root, None, name)
        classes = classes or tuple(str(label) for label in range(highest + 1))
        if highest >= len(classes):
            raise UsageError(f"{name}: label {highest} is not among the {len(classes)} classes")
        labels = [int(row.label) for row in rows]
    else:
        names, classes = class_list(root, texts, name)
        label_of = {text: label for label, text in enumerate(names)}
        labels = [label_of[row.label] for row in rows]
    given: dict[str, list[int]] = {}
    for index, row in enumerate(rows if any(row.split for row in rows) else ()):
        if not row.split:
            raise UsageError(f"{row.place}: no split, but other lines have one")
        if row.split.lower() not in SPLIT_NAMES:
            hint = nearest(row.split, list(SPLIT_NAMES))
            raise UsageError(f"{row.place}: unknown split '{row.split}'{hint}")
        given.setdefault(SPLIT_NAMES[row.split.lower()], []).append(index)
    return FileDataset(
        name,
        root,
        classes,
        tuple(row.path for row in rows),
        np.array(labels, np.int64),
        {split: np.array(members, np.int64) for split, members in given.items()},
    )


@dataclass(frozen=True)
class _Row:
    place: str  # file:line
    path: str
    label: str
    split: str


def _csv_rows(root: Folder, file: str) -> Iterator[_Row]:
    path = root.at(file)
    columns = {"path": 0, "label": 1}
    try:
        with _lines(root, file, newline="") as stream:
            reader = csv.reader(stream)
            for number, cells in enumerate(reader):
                place = f"{path}:{reader.line_num}"
                names = [cell.strip().lower() for cell in cells]
                if number == 0 and "path" in names and "label" in names:
                    columns = {cell: column for column, cell in enumerate(names)}
                    continue
                if not any(names):
                    continue
                if len(cells) <= max(columns["path"], columns["label"]):
                    raise UsageError(f"{place}: a path and a label are needed, separated by ','")
                split = columns.get("split", len(cells))
                yield _row(
                    place,
                    cells[columns["path"]],
                    cells[columns["label"]],
                    cells[split] if split < len(cells) else "",
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path} as UTF-8 CSV: {error}") from error


def _jsonl_rows(root: Folder, file: str) -> Iterator[_Row]:
    path = root.at(file)
    try:
        with _lines(root, file) as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                place = f"{path}:{number}"
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits
                    raise UsageError(f"{place}: not JSON: {error}") from error
                if not isinstance(entry, dict) or not {"path", "label"} <= entry.keys():
                    raise UsageError(f'{place}: {{"path": ..., "label": ...}} is needed')
                yield _row(place, entry["path"], entry["label"], entry.get("split", ""))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path} as UTF-8 JSONL: {error}") from error


def _lines(root: Folder, file: str, newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(root.open(file), encoding="utf-8-sig", newline=newline)


def _row(place: str, path: object, label: object, split: object) -> _Row:
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not (isinstance(path, str) and isinstance(label, str) and isinstance(split, str)):
        raise UsageError(f"{place}: the path must be a text, the label a text or a whole number")
    if not path.strip() or not label.strip() or "\0" in path:
        raise UsageError(f"{place}: the path or the label is empty")
    return _Row(place, path.strip(), label.strip(), split.strip())


def class_list(
    folder: Folder, data_classes: Sequence[str] | None, name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes' names in the data, and their names for people, in label order.

    ``classes.txt`` has one class per line, in label order, with a different name for people after
    a tab. It may list classes that are not among ``data_classes``, but must list all that are.
    Without it, ``data_classes`` are numbered in their order.
    """
    path = folder.at(_CLASSES)
    if not folder.has_file(_CLASSES):
        plain = tuple(data_classes or ())
        return plain, plain
    try:
        lines = [line.strip() for line in read_text(folder, _CLASSES).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path} as UTF-8 text: {error}") from error
    pairs = [line.split("\t", 1) for line in lines if line]
    names_in_data = tuple(pair[0].strip() for pair in pairs)
    display_names = tuple(pair[-1].strip() for pair in pairs)
    for names in (names_in_data, display_names):
        duplicate, count = Counter(names).most_common(1)[0] if names else ("", 0)
        if count != 1:
            raise UsageError(f"{path} lists '{duplicate}' {count} times")
    for class_ in data_classes or ():
        if class_ not in names_in_data:
            raise UsageError(f"{name} has a class '{class_}' that {path} does not list")
    return names_in_data, display_names
