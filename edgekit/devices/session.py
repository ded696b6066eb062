"""A connection to a device: the user's own ssh, one agent at its other end, frames in between.

Everything that a command does on a device goes through one connection, so that there is one place
where it can break, and one process there whose end is the end of all.
"""

from __future__ import annotations

import contextlib
import queue
import shlex
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any, Final

from edgekit.core.errors import DeviceUnreachable, EdgekitError, ToolchainMissing
from edgekit.devices.registry import Device
from edgekit.devices.remote import agent

_CONNECT_SECONDS: Final = 20
_ALIVE_SECONDS: Final = 10  # between ssh's own signs of life; three missing end the connection
_NOISE: Final = 1 << 16  # bytes that a login script may print before the agent speaks
_SSH: Final = (
    "-T",
    # A question that nobody sees would hang for ever; keys and agents need none.
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={_CONNECT_SECONDS}"),
    *("-o", f"ServerAliveInterval={_ALIVE_SECONDS}", "-o", "ServerAliveCountMax=3"),
    # What the user's configuration opens for logins would get in the way here.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
_PYTHON_VARIABLES: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class RemoteError(EdgekitError):
    """Something that the device could not do, such as writing to a full disk."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class Session:
    """An agent on ``device``, from entering the context to leaving it.

    For one thread; only `close` may be called by any, at any time: it ends what runs there.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._loaded: set[str] = set()
        self._stderr: deque[str] = deque(maxlen=50)
        self._frames: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._heard = time.monotonic()
        source = Path(agent.__file__).read_bytes()
        try:
            self._ssh = subprocess.Popen(
                ssh_command(device, len(source)),
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
        self._stdout: IO[bytes] = self._ssh.stdout
        for target, stream in ((self._collect, self._ssh.stderr), (self._receive, self._stdout)):
            threading.Thread(target=target, args=(stream,), daemon=True).start()
        self._source = source

    def __enter__(self) -> Session:
        try:
            self._write(self._source)
            self._await_agent()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(self, module: ModuleType, function: str, *arguments: Any, payload: bytes = b"") -> Any:
        """What ``function`` of ``module`` returns on the device; bytes go last."""
        self.post(module, function, *arguments, payload=payload)
        return self.reply()

    def post(
        self, module: ModuleType, function: str, *arguments: Any, payload: bytes = b""
    ) -> None:
        """`call` without waiting; every one needs its `reply`."""
        name = module.__name__
        if name not in self._loaded:
            assert module.__file__ is not None
            self._send({"op": "load", "module": name}, Path(module.__file__).read_bytes())
            self.reply()
            self._loaded.add(name)
        header = {"op": "call", "module": name, "function": function, "arguments": list(arguments)}
        self._send(header, payload)

    def reply(self) -> Any:
        """The answer to the oldest `post`."""
        header, _ = self._next()
        if header["op"] == "failed":
            text = f"{self.device.name}: {header['error']}"
            raise RemoteError(text, header.get("errno"))
        return header.get("value")

    def lock(self, path: str, *, shared: bool = False, patience: float = 5.0) -> None:
        """Keep others out until this session ends."""
        deadline = time.monotonic() + patience  # a broken predecessor needs moments to clean up
        while True:
            self._send({"op": "lock", "path": path, "shared": shared})
            if self.reply():
                return
            if time.monotonic() > deadline:
                raise EdgekitError(
                    f"{self.device.name} is in use by another edgekit: wait for it to finish (one "
                    "whose link is dead ends by itself within a minute)"
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
        stdout.
        """
        self.start(command, environment=environment)
        self.end_input()
        written: list[bytes] = []
        lines = {1: _Lines(None if quiet_output else on_line), 2: _Lines(on_line)}
        for stream, data in self.output():
            if stream == 1:
                written.append(data)
            lines[stream].feed(data)
        for rest in lines.values():
            rest.finish()
        return self.exit_code, b"".join(written).decode(errors="replace")

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a command there; `output` and `feed` talk to it."""
        self.exit_code = -1
        self._send(
            {
                "op": "run",
                "command": list(command),
                "environment": {"PYTHONUNBUFFERED": "1", **(environment or {})},
                "without": _PYTHON_VARIABLES,
            }
        )

    def feed(self, data: bytes) -> None:
        """Write to the running command's stdin."""
        self._send({"op": "in"}, data)

    def end_input(self) -> None:
        """Close the running command's stdin."""
        self._send({"op": "eof"})

    def output(self) -> Iterator[tuple[int, bytes]]:
        """What the running command writes, as (1 or 2, bytes), until it ends."""
        while True:
            header, payload = self._next()
            if header["op"] == "out":
                yield header["stream"], payload
            elif header["op"] == "exit":
                self.exit_code = header["code"]
                return
            elif header["op"] == "failed":
                raise RemoteError(f"{self.device.name}: {header['error']}", header.get("errno"))

    def close(self) -> None:
        """End what runs on the device, then the connection."""
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._ssh.wait(timeout=6)  # the agent gives its processes four seconds
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        except KeyboardInterrupt:  # pressed again
            self._ssh.kill()
            raise
        self._frames.put(None)

    def _next(self) -> tuple[dict[str, Any], bytes]:
        while True:
            try:
                frame = self._frames.get(timeout=1)
            except queue.Empty:
                if time.monotonic() - self._heard > agent.SILENCE:
                    self._ssh.kill()
                    raise DeviceUnreachable(
                        f"{self.device.name} has been silent for {agent.SILENCE:.0f} s: check its "
                        "network, then run the same command again"
                    ) from None
                continue
            if frame is None:
                self._frames.put(None)  # for whoever asks next
                raise self._lost()
            return frame

    def _await_agent(self) -> None:
        try:
            header, _ = self._next()
        except DeviceUnreachable:
            raise self._refused() from None
        assert header["op"] == "ready"

    def _refused(self) -> EdgekitError:
        """Why the agent did not start, from ssh's exit code and last words."""
        code = self._finished()
        said = self._said()
        name, host = self.device.name, self.device.host
        who = name if name == host else f"{name} ({host})"
        if code == 255:
            return DeviceUnreachable(f"cannot reach {who}: {_advice(said, self.device)}")
        if code in (126, 127) or "not found" in said.lower():
            return ToolchainMissing(
                f"{who} has no {self.device.python}: run 'sudo apt-get install python3 "
                "python3-venv' there, or name its Python with 'edgekit device add --python'"
            )
        return EdgekitError(
            f"{who} answered, but {self.device.python} did not start there: {said or 'no message'}"
        )

    def _lost(self) -> EdgekitError:
        self._finished()
        said = self._said()
        return DeviceUnreachable(
            f"the link to {self.device.name} broke{f' ({said})' if said else ''}: run the same "
            "command again, it goes on where it was"
        )

    def _finished(self) -> int:
        try:
            return self._ssh.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            return self._ssh.wait()

    def _said(self) -> str:
        """The last line that matters of what ssh and the agent wrote to stderr."""
        time.sleep(0.05)  # the reader may be a line behind
        lines = [line for line in self._stderr if line and not line.startswith("Warning:")]
        for line in lines:
            if "REMOTE HOST IDENTIFICATION HAS CHANGED" in line:
                return "its host key is not the one in known_hosts"
        kept = [
            line for line in lines if not line.startswith(("Shared connection", "Connection to"))
        ]
        return (kept or lines or [""])[-1]

    def _send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self._write(agent.pack(header, payload))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with self._writing:
                while view:
                    view = view[self._stdin.write(view) :]
        except (OSError, ValueError):  # ValueError: closed by `close`
            pass  # the reader knows, too, and with ssh's last words

    def _beat(self) -> None:
        while not self._closed.wait(agent.BEAT):
            self._send({"op": "ping"})

    def _collect(self, stream: IO[bytes]) -> None:
        for line in iter(stream.readline, b""):
            self._stderr.append(line.decode(errors="replace").strip())

    def _receive(self, stream: IO[bytes]) -> None:
        try:
            noise = b""
            while not noise.endswith(agent.MAGIC):
                noise += self._exactly(stream, 1)
                if len(noise) > _NOISE:
                    return
            self._frames.put(({"op": "ready"}, b""))
            while True:
                header, payload = agent.unpack(lambda count: self._exactly(stream, count))
                if header["op"] != "ping":
                    self._frames.put((header, payload))
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self._frames.put(None)

    def _exactly(self, stream: IO[bytes], count: int) -> bytes:
        parts = []
        while count:
            data = stream.read(count)
            if not data:
                raise EOFError
            self._heard = time.monotonic()
            parts.append(data)
            count -= len(data)
        return b"".join(parts)


class _Lines:
    """Cuts what comes in pieces into lines; a carriage return ends one as well."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if self._on_line is not None and line.strip():
                self._on_line(line.decode(errors="replace").rstrip())

    def finish(self) -> None:
        self.feed(b"\n")


def ssh_command(device: Device, source_bytes: int) -> list[str]:
    """The ssh command that starts an agent whose source, so long, comes first on its stdin."""
    # Reads not one byte more than the source: what follows are frames.
    start = (
        "import io;exec(compile(io.BufferedReader(io.FileIO(0,closefd=False),1)"
        f'.read({source_bytes}),"agent","exec"))'
    )
    port = ["-p", str(device.port)] if device.port else []
    command = f"exec {remote_path(device.python)} -u -c '{start}'"
    return ["ssh", *_SSH, *port, *device.options, "--", device.host, command]


def remote_path(path: str) -> str:
    """A path as a word of the device's shell; a leading ~/ stays for it to expand."""
    if path.startswith("~/"):
        return "~/" + shlex.quote(path[2:])
    return shlex.quote(path)


def _advice(said: str, device: Device) -> str:
    """ssh's reason, and what to do about it."""
    lower = said.lower()
    if "host key" in lower:
        return (
            f"{said}: run 'ssh {device.host}' once and compare the fingerprint; if the device was "
            "set up anew, forget its old key with ssh-keygen -R"
        )
    if "permission denied" in lower:
        return f"{said}: run 'ssh-copy-id {device.host}', edgekit asks for no passwords"
    if "could not resolve" in lower:
        return f"{said}: check the name, or 'edgekit device add' it again"
    return f"{said or 'ssh says nothing'}: is it on, and is this its address and port?"
