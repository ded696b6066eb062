"""Frames from a device: validated, matched to requests, and queued within a memory bound."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

_MOST_WAITING: Final = 256 << 20  # bytes that nobody has taken yet
_OVERHEAD: Final = 1 << 10  # of a frame, in this process's memory
_MOST_ERROR: Final = 500  # characters


@dataclass(frozen=True)
class Frame:
    """A message from the agent: ``done``, ``failed``, ``out`` or ``exit`` (see the agent)."""

    op: str
    payload: bytes = b""
    value: object = None
    error: str = ""
    errno: int | None = None
    stream: int = 0
    code: int = 0

    @staticmethod
    def of(header: object, payload: bytes) -> Frame:
        """Raises ValueError for what no agent sends."""
        match header:
            case {"op": "ping", **rest} if not rest:
                return Frame("ping")
            case {"op": "done", **rest} if not rest.keys() - {"value"}:
                return Frame("done", value=rest.get("value"))
            case {"op": "failed", "error": str(error), **rest}:
                number = rest.get("errno")
                text = " ".join(error.split())[:_MOST_ERROR]
                return Frame("failed", error=text, errno=number if type(number) is int else None)
            case {"op": "out", "stream": 1 | 2 as stream}:
                return Frame("out", payload, stream=stream)
            case {"op": "exit", "code": int(code)} if -64 <= code <= 255:
                return Frame("exit", code=code)
        raise ValueError("no agent sends this")


class Inbox:
    """Frames waiting to be taken. Unrequested frames are refused, and so are too many."""

    def __init__(self, most: int = _MOST_WAITING) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._answers = 0  # still to come
        self._running = False
        self._over = False

    def expect(self, op: str) -> None:
        """Note a request; only answers to requests are accepted."""
        with self._changed:
            if op == "run":
                self._running = True
            elif op in ("load", "call", "lock"):
                self._answers += 1

    def put(self, frame: Frame) -> None:
        """Queue a frame; ValueError if nothing asked for it, or the queue is full."""
        with self._changed:
            if frame.op in ("out", "exit"):
                expected = self._running
                self._running = self._running and frame.op == "out"
            elif frame.op == "failed" and self._running:
                expected = True
            else:
                expected = self._answers > 0
                self._answers -= expected
            if not expected:
                raise ValueError("nobody asked for it")
            self._bytes += len(frame.payload) + _OVERHEAD
            if self._bytes > self._most:
                raise ValueError("more than fits in memory")
            self._frames.append(frame)
            self._changed.notify()

    def ended(self) -> None:
        """The command did not start, or the caller no longer wants its output."""
        with self._changed:
            self._running = False

    def close(self) -> None:
        """Nothing more will come; wake whoever waits."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def take(self, seconds: float) -> Frame | None:
        """The oldest frame; None on timeout, or if no more can come."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._over, seconds)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= len(frame.payload) + _OVERHEAD
            return frame
