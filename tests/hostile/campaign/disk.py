"""What may lie on a disk after its power was cut: replays of recorded operations, not all of them.

As the crash tests of SQLite and ALICE do it. Only what was synced is sure: the content of a file by
its own fsync, the names in a folder by the folder's. Of what came later, the disk may hold

- of each folder's changes of names, the first few (a rename is one change: all of it or nothing),
- of each file, what it held when it was synced last, or any part of what was written since; or the
  new size with zeros in it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

How = Literal["nothing", "names only", "some", "journal"]
HOWS: tuple[How, ...] = ("nothing", "names only", "some", "journal")
"""Of what was not synced: nothing is on disk; names without content; any part; any part, but names
in the order in which they were changed anywhere, as file systems with a journal keep them."""


@dataclass(frozen=True)
class Event:
    """One recorded operation."""

    kind: str
    words: tuple[str, ...]
    data: bytes = b""


@dataclass(eq=False)
class File:
    """A file's content; ``versions`` are the states since it was last synced."""

    live: bytearray
    versions: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.versions.append(bytes(self.live))

    def changed(self) -> None:
        self.versions.append(bytes(self.live))

    def sync(self) -> None:
        self.versions = [bytes(self.live)]

    def kept(self, how: How, chance: random.Random) -> bytes:
        """What may be on disk."""
        if how in ("nothing", "names only"):
            return self.versions[0]
        version = chance.choice(self.versions)
        match chance.randrange(3):
            case 0 if len(self.versions) > 1:
                return version[: chance.randint(0, len(version))]
            case 1 if len(self.versions) > 1:
                return bytes(len(version))
            case _:
                return version


@dataclass(eq=False)
class Folder:
    """Names; ``pending`` are the changes since the folder was last synced, with their time."""

    live: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, File | Folder | None]]] = field(default_factory=list)

    def change(self, time: int, names: dict[str, File | Folder | None]) -> None:
        self.pending.append((time, names))
        _apply(self.live, names)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.live), []

    def kept(self, how: How, until: int, chance: random.Random) -> dict[str, File | Folder]:
        """The names that may be on disk."""
        names = dict(self.durable)
        count = {"nothing": 0, "names only": len(self.pending)}.get(
            how, chance.randint(0, len(self.pending))
        )
        for index, (time, change) in enumerate(self.pending):
            if time < until if how == "journal" else index < count:
                _apply(names, change)
        return names


def _apply(names: dict[str, File | Folder], change: Mapping[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """A folder as its programs see it, and what of it is sure to be on disk: at first, all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, File] = {}
        self._time = 0
        self.top = self._read(root)

    def _read(self, path: Path) -> Folder:
        folder = Folder()
        for entry in path.iterdir():
            if entry.is_dir():
                folder.live[entry.name] = self._read(entry)
            elif entry.is_file():
                number = str(entry.stat().st_ino)
                if number not in self._files:
                    self._files[number] = File(bytearray(entry.read_bytes()))
                folder.live[entry.name] = self._files[number]
        folder.sync()
        return folder

    def apply(self, event: Event) -> None:
        """One operation more."""
        self._time += 1
        match event.kind, event.words:
            case "create", (number, path):
                self._files[number] = File(bytearray())
                self._change(path, self._files[number])
            case "write", (number, offset, size):
                self._write(number, int(offset), int(size), event.data)
            case "truncate", (number, size):
                if file := self._files.get(number):
                    del file.live[int(size) :]
                    file.live.extend(bytes(int(size) - len(file.live)))
                    file.changed()
            case "sync", (number, path):
                node = self._find(path)
                if isinstance(node, Folder):
                    node.sync()
                elif file := self._files.get(number):
                    file.sync()
            case (("rename" | "exchange" | "link"), (one, two)):
                self._move(event.kind, one, two)
            case "mkdir", (path,):
                self._change(path, Folder())
            case (("unlink" | "rmdir"), (path,)):
                self._change(path, None)
            case _:
                raise AssertionError(event)

    def _write(self, number: str, offset: int, size: int, data: bytes) -> None:
        file = self._files.get(number)
        if file is None:
            return
        if len(file.live) < offset:
            file.live.extend(bytes(offset - len(file.live)))
        file.live[offset : offset + size] = data
        file.changed()

    def _move(self, kind: str, one: str, two: str) -> None:
        node, other = self._find(one), self._find(two)
        if node is None:
            return  # from elsewhere
        rest = {"rename": None, "exchange": other, "link": node}[kind]
        first, second = self._find(str(Path(one).parent)), self._find(str(Path(two).parent))
        assert isinstance(first, Folder)
        if first is second:
            first.change(self._time, {Path(one).name: rest, Path(two).name: node})
            return
        if kind != "link":
            first.change(self._time, {Path(one).name: rest})
        if isinstance(second, Folder):
            second.change(self._time, {Path(two).name: node})

    def _change(self, path: str, node: File | Folder | None) -> None:
        parent = self._find(str(Path(path).parent))
        if isinstance(parent, Folder):
            parent.change(self._time, {Path(path).name: node})

    def _find(self, path: str) -> File | Folder | None:
        node: File | Folder | None = self.top
        if not Path(path).is_relative_to(self.root):
            return None
        for part in Path(path).relative_to(self.root).parts:
            node = node.live.get(part) if isinstance(node, Folder) else None
        return node

    def differs(self, path: Path, folder: Folder | None = None) -> str:
        """Where what the programs see is not what was recorded; "" for nowhere."""
        folder = folder or self.top
        names = {entry.name for entry in path.iterdir() if entry.is_dir() or entry.is_file()}
        if names != set(folder.live):
            return f"{path}: {names ^ set(folder.live)}"
        for name, node in folder.live.items():
            inner = path / name
            if isinstance(node, Folder):
                if found := self.differs(inner, node):
                    return found
            elif inner.read_bytes() != node.live:
                return str(inner)
        return ""

    def cut(self, target: Path, how: How, chance: random.Random) -> None:
        """Write to ``target`` what may be left after the power is cut now."""
        self._restore(self.top, target, how, chance.randint(0, self._time), chance)

    def _restore(
        self, folder: Folder, path: Path, how: How, until: int, chance: random.Random
    ) -> None:
        path.mkdir(exist_ok=True)
        for name, node in folder.kept(how, until, chance).items():
            if isinstance(node, Folder):
                self._restore(node, path / name, how, until, chance)
            else:
                (path / name).write_bytes(node.kept(how, chance))


def read_log(path: Path) -> list[Event]:
    """What `file_faults.cpp` wrote."""
    data, events, at = path.read_bytes(), [], 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, *words = data[at:end].decode().split("\t")
        at = end + 1
        size = int(words[2]) if kind == "write" else 0
        events.append(Event(kind, tuple(words), data[at : at + size]))
        at += size
    return events
