"""A connection to a device, and the operations it offers.

Everything a command does on a device goes through one connection: there is one place where it can
break, and one process there whose end stops everything else.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from edgekit.core.errors import EdgekitError
from edgekit.devices.answers import Answer
from edgekit.devices.frames import Frame
from edgekit.devices.link import LIMITS, Limits, Link
from edgekit.devices.output import HeadAndTail, Lines
from edgekit.devices.registry import Device

_PYTHON_VARIABLES: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class RemoteError(EdgekitError):
    """The device could not do something, such as write to a full disk."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class Session:
    """An agent on ``device``, from entering the context to leaving it.

    For one thread; only `close` and `give_up` may be called from any, at any time: they end what
    runs there. Every wait has a limit (`Limits`), after which the method raises
    `DeviceUnreachable`.
    """

    def __init__(self, device: Device, limits: Limits = LIMITS) -> None:
        self.device = device
        self.exit_code = -1
        self._limits = limits
        self._link = Link(device, limits)
        self._loaded: set[str] = set()
        self._asked: deque[str] = deque()  # the requests that the next replies answer

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._link.open()
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs on the device, then the connection."""
        self._link.close()

    def give_up(self, error: EdgekitError) -> None:
        """End the connection; whatever uses it gets ``error``."""
        self._link.give_up(error)

    def call(
        self, module: ModuleType, function: str, *arguments: Any, payload: bytes = b""
    ) -> Answer:
        """What ``function`` of ``module`` returns on the device; bytes go last."""
        self.post(module, function, *arguments, payload=payload)
        return self.reply()

    def post(
        self, module: ModuleType, function: str, *arguments: Any, payload: bytes = b""
    ) -> None:
        """`call` without waiting; each needs its own `reply`."""
        name = module.__name__
        if name not in self._loaded:
            assert module.__file__ is not None
            self._ask("load", {"module": name}, Path(module.__file__).read_bytes())
            self.reply()
            self._loaded.add(name)
        header = {"module": name, "function": function, "arguments": list(arguments)}
        self._ask("call", header, payload, about=function)

    def reply(self) -> Answer:
        """The answer to the oldest `post`."""
        what = self._asked.popleft()
        frame = self._link.take(f"answered ({what})", self._limits.answer)
        if frame.op == "failed":
            raise self._failed(frame)
        return Answer(frame.value, f"{self.device.name}'s answer ({what})")

    def lock(self, path: str, *, shared: bool = False, patience: float = 5.0) -> None:
        """Keep others out until this session ends."""
        deadline = time.monotonic() + patience  # a broken predecessor needs a moment to clean up
        while True:
            self._ask("lock", {"path": path, "shared": shared})
            if self.reply().flag():
                return
            if time.monotonic() > deadline:
                raise EdgekitError(
                    f"{self.device.name} is in use by another edgekit: wait for it to finish (one "
                    "with a dead link ends within a minute)"
                )
            time.sleep(0.2)

    def run(
        self,
        command: Sequence[str],
        *,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        quiet_output: bool = False,
    ) -> tuple[int, str]:
        """Run a command there to its end: its exit code and what it wrote to stdout.

        ``on_line`` gets every line as it is written: of stderr and, unless ``quiet_output``, of
        stdout. Very long output is cut to its beginning and end.
        """
        written = HeadAndTail()
        lines = {1: Lines(None if quiet_output else on_line), 2: Lines(on_line)}
        with self._link.limit(f"finished '{' '.join(command)[:80]}'", self._limits.command):
            self.start(command, environment=environment)
            self.end_input()
            for stream, data in self.output(self._limits.command):
                if stream == 1:
                    written.feed(data)
                lines[stream].feed(data)
        for rest in lines.values():
            rest.finish()
        return self.exit_code, written.text()

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a command there; `output` and `feed` talk to it."""
        self.exit_code = -1
        self._link.send(
            {
                "op": "run",
                "command": list(command),
                "environment": {"PYTHONUNBUFFERED": "1", **(environment or {})},
                "without": _PYTHON_VARIABLES,
            }
        )

    def feed(self, data: bytes) -> None:
        """Write to the running command's stdin, which may be busy with what it has."""
        self._link.send({"op": "in"}, data, self._limits.answer)

    def end_input(self) -> None:
        """Close the running command's stdin."""
        self._link.send({"op": "eof"})

    def output(self, seconds: float | None = None) -> Iterator[tuple[int, bytes]]:
        """What the running command writes, as (1 or 2, bytes), until it ends.

        Each piece must come within ``seconds``.
        """
        while True:
            frame = self._link.take("written any output", seconds or self._limits.answer)
            if frame.op == "out":
                yield frame.stream, frame.payload
            elif frame.op == "exit":
                self.exit_code = frame.code
                return
            elif frame.op == "failed":
                self._link.inbox.ended()
                raise self._failed(frame)

    def _ask(self, op: str, header: dict[str, Any], payload: bytes = b"", about: str = "") -> None:
        self._asked.append(about or op)
        self._link.send({"op": op, **header}, payload)

    def _failed(self, frame: Frame) -> RemoteError:
        return RemoteError(f"{self.device.name}: {frame.error}", frame.errno)
