"""The agent on a device: started by ssh, it does what the host asks, and leaves nothing behind.

This file is sent through the connection and runs under the device's own Python, 3.7 or newer, so
it imports the standard library only. Everything that edgekit starts on a device is a descendant
of this process, which ends them all when

- the host closes the connection or is killed, or the link breaks (stdin hangs up),
- the host has been silent for a minute (the link is dead, unnoticed).

If this process itself is killed, the kernel kills what it started; anything that survives holds the
locks until it ends, so nobody else works at the same time.

Frames go both ways: two big-endian 32-bit lengths, a JSON header, a payload of bytes. The host
sends ``load``, ``call``, ``lock``, ``run``, ``in``, ``eof`` and ``ping``; the agent answers
``done``, ``failed``, ``out`` and ``exit``, and sends ``ping`` unasked.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAGIC = b"edgekit agent 1\n"
BEAT = 5.0  # seconds between heartbeats
SILENCE = 60.0  # seconds after which the other side counts as gone
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_LENGTHS = struct.Struct(">II")
_MOST = 1 << 28  # bytes of a frame; anything larger is noise
_BLOCK = 1 << 16
_PDEATHSIG = 1  # PR_SET_PDEATHSIG: the signal a process gets when its parent dies
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphaned descendants become this process's children


def pack(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """A frame."""
    text = json.dumps(header).encode()
    return b"".join((_LENGTHS.pack(len(text), len(payload)), text, payload))


def unpack(
    read: Callable[[int], bytes], most_header: int = _MOST, most_payload: int = _MOST
) -> tuple[dict[str, Any], bytes]:
    """The next frame; ``read`` returns exactly as many bytes as asked, or raises EOFError.

    ValueError if it is not a frame, or its header or payload exceeds the given bytes.
    """
    first, second = _LENGTHS.unpack(read(_LENGTHS.size))
    if first > most_header or second > most_payload:
        raise ValueError("this is not a frame")
    try:
        header = json.loads(read(first).decode())
    except RecursionError as error:
        raise ValueError("this is not a frame: it is nested too deep") from error
    return header, read(second) if second else b""


class Agent:
    """The device's end of a connection; it runs one command at a time."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = threading.Lock()
        self._ending = threading.Lock()
        self._waiting_since = 0.0  # when the wait for the host began; 0 while not waiting
        self._modules: dict[str, dict[str, Any]] = {}
        self._locks: dict[str, int] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._prctl: Any = None

    def serve(self) -> None:
        """Do what the host asks until it hangs up; never returns."""
        with contextlib.suppress(OSError, AttributeError):  # not Linux: process groups must do
            self._prctl = ctypes.CDLL(None).prctl
            self._prctl(_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        self._write(MAGIC)
        for task in (self._watch, self._beat):
            threading.Thread(target=task, daemon=True).start()
        try:
            while True:
                header, payload = unpack(self._read)
                self._handle(header, payload)
        except EOFError:
            pass
        finally:  # a bug leaves nothing behind either
            self._end()

    def _handle(self, header: dict[str, Any], payload: bytes) -> None:
        try:
            answer = self._execute(header, payload)
        except OSError as error:
            text = error.strerror or str(error)
            self._send({"op": "failed", "error": text, "errno": error.errno})
            return
        if answer is not None:
            self._send(answer)

    def _execute(self, header: dict[str, Any], payload: bytes) -> dict[str, Any] | None:
        op = header["op"]
        if op == "load":
            module: dict[str, Any] = {"__name__": header["module"]}
            exec(compile(payload, header["module"], "exec"), module)
            self._modules[header["module"]] = module
            return {"op": "done"}
        if op == "call":
            function = self._modules[header["module"]][header["function"]]
            arguments = [*header["arguments"], payload] if payload else header["arguments"]
            return {"op": "done", "value": function(*arguments)}
        if op == "lock":
            return {"op": "done", "value": self._lock(header["path"], header["shared"])}
        if op == "run":
            self._run(header)
        elif op == "in" and self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended; its exit code says why
                self._child.stdin.write(payload)
        elif op == "eof" and self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        return None

    def _lock(self, path: str, shared: bool) -> bool:
        """Hold the file ``path`` until this process ends; False if another one does."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._locks[path] = handle
        return True

    def _run(self, header: dict[str, Any]) -> None:
        environment = {**os.environ, **header["environment"]}
        for name in header["without"]:
            environment.pop(name, None)
        child = subprocess.Popen(
            header["command"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",  # a folder of the home directory could shadow a package
            start_new_session=True,
            pass_fds=tuple(self._locks.values()),
            # Started by the main thread, so the signal comes when this process dies.
            preexec_fn=functools.partial(_die_with, os.getpid(), self._prctl),
        )
        self._child = child
        threading.Thread(target=self._follow, args=(child,), daemon=True).start()

    def _follow(self, child: subprocess.Popen[bytes]) -> None:
        """Forward a command's output; when it ends, end what it left running."""
        pumps = [
            threading.Thread(target=self._pump, args=(stream, number), daemon=True)
            for stream, number in ((child.stdout, 1), (child.stderr, 2))
        ]
        for pump in pumps:
            pump.start()
        code = child.wait()
        _end_descendants()
        for pump in pumps:
            pump.join()
        self._child = None
        self._send({"op": "exit", "code": code})

    def _pump(self, stream: Any, number: int) -> None:
        while True:
            data = os.read(stream.fileno(), _BLOCK)
            if not data:
                return
            self._send({"op": "out", "stream": number}, data)

    def _watch(self) -> None:
        """End when the host is gone, whatever the main thread is doing."""
        poll = select.poll()
        poll.register(self._incoming, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
        while True:
            hung_up = bool(poll.poll(1000))
            since = self._waiting_since
            if hung_up or (since and time.monotonic() - since > SILENCE):
                self._end()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            self._send({"op": "ping"})

    def _send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self._write(pack(header, payload))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with self._writing:
                while view:
                    view = view[os.write(self._outgoing, view) :]
        except OSError:  # nobody is listening any more
            self._end()

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            self._waiting_since = time.monotonic()
            data = os.read(self._incoming, min(count, 1 << 20))
            self._waiting_since = 0.0
            if not data:
                raise EOFError
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def _end(self) -> None:
        """End everything that was started here, then this process; the locks go with it."""
        if not self._ending.acquire(blocking=False):
            time.sleep(10 * _GRACE)  # another thread is at it, and will end this one, too
        _end_descendants()
        os._exit(0)


def _die_with(parent: int, prctl: Any) -> None:
    """In a new child: be killed when ``parent`` dies, even if it is dead already."""
    if prctl is not None:
        prctl(_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _end_descendants() -> None:
    """SIGTERM, then SIGKILL for those that remain, even in sessions of their own."""
    deadline = time.monotonic() + _GRACE
    signalled: set[int] = set()
    while True:
        alive = _descendants(os.getpid())
        if not alive:
            return
        late = time.monotonic() > deadline
        for process in alive:
            if late or process not in signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
                signalled.add(process)
        if time.monotonic() > deadline + _GRACE:  # stuck in the kernel, or not ours to kill
            return
        time.sleep(0.02)


def _descendants(root: int) -> list[int]:
    """Living processes below ``root``; zombies do not count."""
    children: dict[int, list[int]] = {}
    dead = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        children.setdefault(int(parent), []).append(int(entry.name))
        if state in "ZX":
            dead.add(int(entry.name))
    descendants: list[int] = []
    level = [root]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        descendants += level
    return [process for process in descendants if process not in dead]


def main() -> None:
    """Reserve stdout for frames; anything printed goes to stderr."""
    outgoing = os.dup(1)
    os.dup2(2, 1)
    Agent(0, outgoing).serve()


if __name__ == "__main__":
    main()
