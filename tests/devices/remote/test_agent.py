"""The agent without a network: it leaves nothing behind, whatever happens to its host."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.devices.remote import agent, facts
from edgekit.devices.remote import files as remote_files
from tests.devices.conftest import parents, wait_until

# A command that is hard to end: a child in a session of its own, an orphan, both deaf to SIGTERM.
STUBBORN = (
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000 & wait' & "
    "(sleep 1000 & ) ; echo ready; sleep 1000"
)


class Host:
    """The other end of an agent's pipes."""

    def __init__(self, source: str | None = None) -> None:
        text = source or Path(agent.__file__).read_text()
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        assert self.stdout.read(len(agent.MAGIC)) == agent.MAGIC

    def send(self, header: dict[str, object], payload: bytes = b"") -> None:
        self.stdin.write(agent.pack(header, payload))
        self.stdin.flush()

    def next(self) -> tuple[dict[str, object], bytes]:
        while True:
            header, payload = agent.unpack(self.stdout.read)
            if header["op"] != "ping":
                return header, payload

    def start(self, script: str) -> None:
        command = ["sh", "-c", script]
        self.send({"op": "run", "command": command, "environment": {}, "without": []})

    def started(self) -> set[int]:
        """Everything below the agent."""
        below = {self.process.pid}
        while True:
            more = {pid for pid, parent in parents().items() if parent in below} - below
            if not more:
                return below - {self.process.pid}
            below |= more


@pytest.fixture
def stubborn() -> Host:
    host = Host()
    host.start(STUBBORN)
    assert host.next() == ({"op": "out", "stream": 1}, b"ready\n")
    assert wait_until(lambda: len(host.started()) >= 5)
    return host


def gone(pids: set[int]) -> bool:
    return not pids & set(parents())


@pytest.mark.parametrize("how", ["hang up", "SIGTERM", "SIGHUP"])
def test_nothing_is_left(stubborn: Host, how: str) -> None:
    started = stubborn.started()
    if how == "hang up":
        stubborn.stdin.close()
    else:
        stubborn.process.send_signal(getattr(signal, how))
    assert stubborn.process.wait(10) == 0
    assert wait_until(lambda: gone(started), 1)


def lock(host: Host, path: Path) -> object:
    host.send({"op": "lock", "path": str(path), "shared": False})
    return host.next()[0]["value"]


def test_a_killed_agent_takes_its_command_along(tmp_path: Path) -> None:
    host = Host()
    assert lock(host, tmp_path / "lock") is True
    host.start("echo ready; exec sleep 1000")
    assert host.next()[1] == b"ready\n"
    started = host.started()
    assert len(started) == 1
    host.process.kill()
    assert wait_until(lambda: gone(started), 5)
    other = Host()
    assert lock(other, tmp_path / "lock") is True
    other.stdin.close()
    assert other.process.wait(10) == 0


def test_what_survives_a_killed_agent_holds_its_lock(tmp_path: Path) -> None:
    """Nobody measures beside it."""
    host = Host()
    assert lock(host, tmp_path / "lock") is True
    host.start("setsid sleep 1000 & echo $!; exec sleep 1000")
    survivor = int(host.next()[1])
    assert wait_until(lambda: len(host.started()) == 2)
    host.process.kill()
    host.process.wait()
    other = Host()
    assert lock(other, tmp_path / "lock") is False
    os.kill(survivor, signal.SIGKILL)
    assert wait_until(lambda: lock(other, tmp_path / "lock"), 5)
    other.stdin.close()
    assert other.process.wait(10) == 0


def test_what_a_command_leaves_behind_ends_with_it() -> None:
    host = Host()
    host.start("setsid sleep 1000 & echo started; exit 7")
    assert host.next()[1] == b"started\n"
    assert host.next()[0] == {"op": "exit", "code": 7}
    assert wait_until(lambda: not host.started(), 1)
    host.stdin.close()
    assert host.process.wait(10) == 0


def test_a_silent_host_is_gone() -> None:
    text = Path(agent.__file__).read_text()
    short = text.replace("SILENCE = 60.0", "SILENCE = 1.0")
    assert short != text
    host = Host(short)
    host.start("sleep 1000")
    assert wait_until(host.started)
    started, begin = host.started(), time.monotonic()
    assert host.process.wait(10) == 0  # its stdin is still open
    assert time.monotonic() - begin < 6
    assert gone(started)


def test_a_busy_child_does_not_hide_that_the_host_hung_up() -> None:
    host = Host()
    host.start("exec sleep 1000")  # never reads
    for _ in range(40):
        try:
            os.set_blocking(host.stdin.fileno(), False)
            host.send({"op": "in"}, bytes(1 << 16))
        except BlockingIOError:
            break
    started = host.started()
    host.process.stdin = None
    os.close(host.stdin.fileno())
    assert host.process.wait(10) == 0
    assert gone(started)


def test_errors_are_answers() -> None:
    host = Host()
    host.send({"op": "load", "module": "files"}, Path(remote_files.__file__).read_bytes())
    assert host.next()[0] == {"op": "done"}
    host.send(
        {
            "op": "call",
            "module": "files",
            "function": "write",
            "arguments": ["/proc", "/proc/no/file", "text"],
        }
    )
    header, _ = host.next()
    assert header["op"] == "failed"
    assert isinstance(header["errno"], int)
    host.send({"op": "run", "command": ["/no/such"], "environment": {}, "without": []})
    assert host.next()[0]["error"] == "No such file or directory"
    host.stdin.close()
    assert host.process.wait(10) == 0


@pytest.mark.parametrize("module", [agent, facts, remote_files], ids=lambda module: module.__name__)
def test_runs_under_old_python_with_nothing_installed(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 7))  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
