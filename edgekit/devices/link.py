"""The wire to a device: the user's own ssh, an agent at its other end, frames in between.

A device that falls silent, stops reading or does not answer ends the link. A separate thread
watches for that, so it is noticed even while other threads are blocked in a read or a write.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from edgekit.core.errors import DeviceUnreachable, EdgekitError, ToolchainMissing
from edgekit.devices.answers import InvalidAnswer
from edgekit.devices.frames import Frame, Inbox
from edgekit.devices.registry import Device
from edgekit.devices.remote import agent
from edgekit.devices.ssh import last_words, ssh_command, start_failure

_NOISE: Final = 1 << 16  # bytes that a login script may print before the agent speaks
_MOST_HEADER: Final = 4 << 20  # bytes; a manifest is read in one
_MOST_PAYLOAD: Final = 1 << 20  # bytes; an agent sends what a command writes in smaller pieces
# Beyond one in each of the agent's beats: a link that was stuck brings many at once.
_MORE_PINGS: Final = 1000
_PIECE: Final = 1 << 16  # bytes of a write, each counts as progress
_LAST_LINES: Final = 50  # of stderr
_LONGEST_LINE: Final = 4096
_AGAIN: Final = "run the same command again, it resumes where it stopped"


@dataclass(frozen=True)
class Limits:
    """Seconds that a device may take; docs/devices.md promises them."""

    silence: float = agent.SILENCE
    """Nothing received since the agent's first word, not even a heartbeat."""
    start: float = 90.0
    """From ssh's start to the agent's first word."""
    taking: float = 120.0
    """Data waits to be sent, and the device takes none of it."""
    answer: float = 900.0
    """A call, or the next piece of an answer."""
    command: float = 6 * 3600.0
    """A command, to its end."""
    closing: float = 6.0
    """From the end of our data to ssh's; the agent gives its processes four of them."""


LIMITS: Final = Limits()


@dataclass(frozen=True)
class _Wait:
    what: str
    seconds: float
    until: float

    @staticmethod
    def of(what: str, seconds: float) -> _Wait:
        return _Wait(what, seconds, time.monotonic() + seconds)


class Link:
    """A running ssh, until `close`. One thread may send and take; any may close."""

    def __init__(self, device: Device, limits: Limits = LIMITS) -> None:
        self.device = device
        self.limits = limits
        self.inbox = Inbox()
        self._source = Path(agent.__file__).read_bytes()
        self._stderr: deque[str] = deque(maxlen=_LAST_LINES)
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._lost: EdgekitError | None = None
        self._heard = time.monotonic()
        self._waiting: _Wait | None = None
        self._sending: _Wait | None = None
        try:
            self._ssh = subprocess.Popen(
                ssh_command(device, len(self._source)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is ours: the agent cleans up before ssh goes
            )
        except FileNotFoundError as error:
            raise ToolchainMissing(
                "there is no ssh on this machine: run 'apt-get install openssh-client'"
            ) from error
        assert self._ssh.stdin is not None
        assert self._ssh.stdout is not None
        assert self._ssh.stderr is not None
        self._stdin: IO[bytes] = self._ssh.stdin
        # A blocking write could not be abandoned.
        os.set_blocking(self._stdin.fileno(), False)
        self._ready = threading.Event()
        self._heard_magic = False
        for task in (self._collect, self._receive, self._watch):
            threading.Thread(
                target=task, daemon=True, name=f"{device.name}: {task.__name__}"
            ).start()

    def open(self) -> None:
        """Start the agent; raises an error that says why it cannot."""
        self._write(self._source, "the agent", self.limits.taking)
        with self.limit("started edgekit's agent", self.limits.start):
            self._ready.wait(self.limits.start + self.limits.silence)
        if self._lost is not None:
            raise self._lost
        if not self._heard_magic:
            raise start_failure(self.device, self._finished(), self._last_words())
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, header: dict[str, Any], payload: bytes = b"", seconds: float = 0.0) -> None:
        """A frame; ``seconds`` without progress end the link (0: `Limits.taking`)."""
        self.inbox.expect(header["op"])
        self._write(agent.pack(header, payload), header["op"], seconds or self.limits.taking)

    def take(self, what: str, seconds: float) -> Frame:
        """The next frame; an error if the device has not ``what`` (a participle) in time."""
        with self.limit(what, seconds):
            # The watcher fires first and knows more; this limit only guards against a bug in it.
            frame = self.inbox.take(seconds + self.limits.silence)
        if frame is None:
            raise self._why()
        return frame

    @contextlib.contextmanager
    def limit(self, what: str, seconds: float) -> Iterator[None]:
        """A context in which the link ends if the device has not ``what`` in time."""
        before = self._waiting
        wait = _Wait.of(what, seconds)
        if before is None or wait.until < before.until:
            self._waiting = wait
        try:
            yield
        finally:
            self._waiting = before

    def give_up(self, error: EdgekitError) -> None:
        """End the link at once; whoever waits gets ``error``, or an earlier one."""
        if self._lost is None and not self._closed.is_set():
            self._lost = error
        self._ssh.kill()
        self.inbox.close()
        self._ready.set()

    def close(self) -> None:
        """End what runs on the device, then the connection."""
        if self._closed.is_set():
            return
        self._closed.set()
        try:
            if self._writing.acquire(timeout=1):
                try:
                    self._stdin.close()
                except OSError:
                    pass  # ssh is gone, and with it the reason to tell it
                finally:
                    self._writing.release()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._ssh.wait(timeout=self.limits.closing)
        finally:  # also when Ctrl-C is pressed again
            self._ssh.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._ssh.wait(timeout=5)
            self.inbox.close()

    def _why(self) -> EdgekitError:
        if self._lost is not None:
            return self._lost
        self._finished()
        words = self._last_words()
        name = self.device.name
        return DeviceUnreachable(
            f"the link to {name} broke{f' ({words})' if words else ''}: {_AGAIN}"
        )

    def _finished(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._ssh.wait(timeout=5)
        self._ssh.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._ssh.wait(timeout=5)
        return -1

    def _last_words(self) -> str:
        time.sleep(0.05)  # the reader may be a line behind
        return last_words(list(self._stderr))

    def _write(self, data: bytes, what: str, seconds: float) -> None:
        view = memoryview(data)
        what = f"taken any data ({what})"
        with self._writing:
            try:
                while view and self._lost is None and not self._closed.is_set():
                    self._sending = self._sending or _Wait.of(what, seconds)
                    try:
                        view = view[os.write(self._stdin.fileno(), view[:_PIECE]) :]
                        self._sending = None
                    except BlockingIOError:
                        select.select([], [self._stdin], [], 0.2)
            except (OSError, ValueError):  # ValueError: closed by `close`
                pass  # the reader notices, too, and has ssh's last words
            finally:
                self._sending = None

    def _watch(self) -> None:
        """End the link when a limit expires, whatever the other threads are stuck in."""
        shortest = min(self.limits.silence, self.limits.taking, self.limits.start)
        while not self._closed.wait(min(1.0, shortest / 4)) and self._lost is None:
            if (overdue := self._overdue(time.monotonic())) is not None:
                self.give_up(overdue)

    def _overdue(self, now: float) -> EdgekitError | None:
        name = self.device.name
        if self._heard_magic and now - self._heard > self.limits.silence:
            return DeviceUnreachable(
                f"{name} has been silent for {self.limits.silence:.0f} s: check its network, then "
                "run the same command again"
            )
        for wait in (self._sending, self._waiting):
            if wait is not None and now > wait.until:
                return DeviceUnreachable(
                    f"{name} has not {wait.what} in {wait.seconds:.0f} s, though it is reachable: "
                    f"see what it is busy with, then {_AGAIN}"
                )
        return None

    def _beat(self) -> None:
        data = agent.pack({"op": "ping"})
        while not self._closed.wait(agent.BEAT) and self._lost is None:
            # A write in progress is a sign of life itself, or has a limit of its own.
            if self._writing.acquire(blocking=False):
                try:
                    # Whole or not at all: it is shorter than what a pipe writes atomically.
                    os.write(self._stdin.fileno(), data)
                except (OSError, ValueError):  # full, broken or closed
                    pass
                finally:
                    self._writing.release()

    def _collect(self) -> None:
        stream = self._ssh.stderr
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(_LONGEST_LINE):
                self._stderr.append(line.decode(errors="replace").strip())

    def _receive(self) -> None:
        try:
            noise = b""
            while not noise.endswith(agent.MAGIC):
                noise += self._exactly(1)
                if len(noise) > _NOISE:
                    return
            self._heard_magic = True
            self._ready.set()
            begin, pings = time.monotonic(), 0
            while True:
                header, payload = agent.unpack(self._exactly, _MOST_HEADER, _MOST_PAYLOAD)
                frame = Frame.of(header, payload)
                if frame.op != "ping":
                    self.inbox.put(frame)
                    continue
                pings += 1
                if pings > _MORE_PINGS + (time.monotonic() - begin) / agent.BEAT:
                    raise ValueError("nothing but heartbeats")
        except (EOFError, OSError):
            pass
        except ValueError as error:
            text = f"{self.device.name} sent something unrequested ({error})"
            self.give_up(InvalidAnswer(f"{text}: check that nothing else answers at that address"))
        finally:
            self.inbox.close()
            self._ready.set()

    def _exactly(self, count: int) -> bytes:
        stream = self._ssh.stdout
        assert stream is not None
        parts = []
        while count:
            data = stream.read(min(count, 1 << 20))
            if not data:
                raise EOFError
            self._heard = time.monotonic()
            parts.append(data)
            count -= len(data)
        return b"".join(parts)
