"""Devices played by the tests: an ``ssh`` on PATH that connects to a program of ours.

What is called ``good@...`` really runs edgekit's agent, on this machine. Any other host name is
that of a folder's script, which speaks the agent's frames and does its worst.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.devices.registry import Device

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
_SSH = """#!{python}
import json, os, re, sys, threading, time
sys.path.insert(0, {root!r})
host, command = sys.argv[-2:]
if host.startswith("good@"):
    os.execvp("sh", ["sh", "-c", command])
from edgekit.devices.remote.agent import MAGIC, pack, unpack

def read(count):
    parts = b""
    while len(parts) < count:
        data = os.read(0, count - len(parts))
        if not data:
            sys.exit(0)
        parts += data
    return parts

writing = threading.Lock()

def write(data):
    with writing:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1, view):]
        except OSError:
            os._exit(0)

def send(header, payload=b""):
    write(pack(header, payload))

def ping():
    while True:
        send({{"op": "ping"}})
        time.sleep(0.2)

def asked():
    "The next thing that the host wants, but for heartbeats."
    while True:
        header, payload = unpack(read)
        if header["op"] != "ping":
            return header, payload

def pinging():
    threading.Thread(target=ping, daemon=True).start()

def answer(**values):
    "Answer every call: with a value of its function's name, or a plausible one."
    while True:
        header, payload = asked()
        name = header.get("function", header["op"])
        plausible = {{"load": None, "lock": True, "home": {root!r}, "read": None}}
        send({{"op": "done", "value": values.get(name, plausible.get(name))}})

read(int(re.search(r"read[(]([0-9]+)[)]", command)[1]))
exec(open({folder!r} + "/" + host.partition("@")[0] + ".py").read())
"""


class Network:
    """Where the devices are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ssh = folder / "ssh"
        text = _SSH.format(python=sys.executable, root=str(ROOT), folder=str(folder))
        ssh.write_text(text)
        ssh.chmod(0o755)

    def good(self, name: str = "good") -> Device:
        """A device that is this machine."""
        return Device(name, "good@here", python=sys.executable, folder=str(self._folder / "home"))

    def enemy(self, script: str, name: str = "enemy") -> Device:
        """A device that runs ``script`` once the agent's source has arrived."""
        (self._folder / f"{name}.py").write_text(script)
        return Device(name, f"{name}@there")


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    folder = tmp_path / "network"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Network(folder)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: its exit code, standard output and error."""

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call
