"""Bounds what is kept of a device command's output."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

_HEAD: Final = 16 << 20  # bytes; a `bench --json` document takes a fraction of it
_TAIL: Final = 64 << 10
_LINE: Final = 16 << 10  # a longer line is cut into several


class HeadAndTail:
    """The beginning and the end of some output, and how much was cut out between them."""

    def __init__(self, head: int = _HEAD, tail: int = _TAIL) -> None:
        self.left_out = 0
        self._head = bytearray()
        self._most = head
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._most_tail = tail

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        room = self._most - len(self._head)
        self._head += data[:room]
        if rest := data[room:]:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        while self._tail and self._tail_bytes - len(self._tail[0]) >= self._most_tail:
            dropped = len(self._tail.popleft())
            self._tail_bytes -= dropped
            self.left_out += dropped

    def text(self) -> str:
        """All of it, or both ends and a line between them that says how much is missing."""
        parts = [bytes(self._head), b"".join(self._tail)]
        gap = f"\n... {self.left_out} bytes left out ...\n" if self.left_out else ""
        return gap.join(part.decode(errors="replace") for part in parts)


class Lines:
    """Splits a stream of pieces into lines; a carriage return ends one as well."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > _LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if self._on_line is not None and line.strip():
                self._on_line(line[:_LINE].decode(errors="replace").rstrip())

    def finish(self) -> None:
        """The end of the stream: what remains is a line, too."""
        self.feed(b"\n")
