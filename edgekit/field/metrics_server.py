"""Serves one text over http, and can neither block nor outgrow the program it reports on.

One thread, sockets that never wait, a few connections, a few seconds for each: whoever is slow,
sends nonsense or connects a thousand times takes nothing from the monitor. The standard library's
http.server waits for slow clients, or takes a thread for each.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from edgekit.core.errors import UsageError

PATH: Final = "/metrics"
_MOST_CONNECTIONS: Final = 16  # the oldest makes room for another
_MOST_REQUEST: Final = 8192  # bytes; Prometheus sends a few hundred
_SECONDS: Final = 5.0  # for a request and its answer, together
_FRESH: Final = 1.0  # seconds for which a text is served again: making it takes the monitor's lock
_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    deadline: float
    request: bytearray = field(default_factory=bytearray)
    answer: bytes = b""  # what is left to send of it


class MetricsServer:
    """Answers ``GET /metrics`` with ``text()``, from entering the context to leaving it."""

    def __init__(self, host: str, port: int, text: Callable[[], str]) -> None:
        self._text = text
        self._made = (-_FRESH, "")  # when, and what
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []  # the oldest first
        self._listener = _listen(host, port)
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"

    def __enter__(self) -> MetricsServer:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waker.close()
        self._thread.join(_SECONDS)

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            for late in [one for one in self._connections if one.deadline <= now]:
                self._close(late)
            wait = self._connections[0].deadline - now if self._connections else None
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._wake:
                    self._end()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._connections:  # not closed in this round
                    self._advance(key.data)

    def _end(self) -> None:
        for one in list(self._connections):
            self._close(one)
        for each in (self._selector, self._listener, self._wake):
            each.close()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # gone again, or no file descriptor is free: it is asked again
            time.sleep(0.05)
            return
        if len(self._connections) == _MOST_CONNECTIONS:
            self._close(self._connections[0])
        accepted.setblocking(False)
        one = _Connection(accepted, time.monotonic() + _SECONDS)
        self._connections.append(one)
        self._selector.register(accepted, selectors.EVENT_READ, one)

    def _advance(self, one: _Connection) -> None:
        """Read or write what is possible now."""
        try:
            if one.answer:
                one.answer = one.answer[one.socket.send(one.answer) :]
                if not one.answer:
                    self._close(one)
                return
            data = one.socket.recv(_MOST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            self._close(one)
            return
        if not data:
            self._close(one)
            return
        one.request += data
        if b"\r\n\r\n" in one.request or len(one.request) > _MOST_REQUEST:
            one.answer = self._respond(bytes(one.request))
            self._selector.modify(one.socket, selectors.EVENT_WRITE, one)

    def _close(self, one: _Connection) -> None:
        self._connections.remove(one)
        self._selector.unregister(one.socket)
        one.socket.close()

    def _respond(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        path, _, version = rest.partition(b" ")
        if len(request) > _MOST_REQUEST:
            return _response("431 Request Header Fields Too Large", "too long\n")
        if not version.startswith(b"HTTP/1."):
            return _response("400 Bad Request", "this is an http server\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "GET only\n", "Allow: GET, HEAD\r\n")
        if path.partition(b"?")[0] != PATH.encode():
            return _response("404 Not Found", f"see {PATH}\n")
        return _response("200 OK", self._current(), head=method == b"HEAD")

    def _current(self) -> str:
        made, text = self._made
        if time.monotonic() > made + _FRESH:
            text = self._text()
            self._made = time.monotonic(), text
        return text


def _response(status: str, body: str, more: str = "", *, head: bool = False) -> bytes:
    data = body.encode()
    header = (
        f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(data)}\r\n"
        f"{more}Connection: close\r\n\r\n"
    )
    return header.encode() + (b"" if head else data)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot serve metrics at {host}, port {port}: {reason}: give --metrics another"
        ) from error
