"""The user's own ssh: how it is called, and what its failures mean."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from edgekit.core.errors import DeviceUnreachable, EdgekitError, ToolchainMissing
from edgekit.devices.registry import Device

_CONNECT_SECONDS: Final = 20
_ALIVE_SECONDS: Final = 10  # between ssh's keep-alives; three missed ones end the connection
_SSH: Final = (
    "-T",
    # ssh takes the first value it is given: nothing after these, in options or files, can bring
    # back a connection to a host whose key is unknown.
    *("-o", "StrictHostKeyChecking=yes", "-o", "VerifyHostKeyDNS=no"),
    *("-o", "NoHostAuthenticationForLocalhost=no"),
    # A prompt that nobody sees would hang forever; keys and agents need none.
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={_CONNECT_SECONDS}"),
    *("-o", f"ServerAliveInterval={_ALIVE_SECONDS}", "-o", "ServerAliveCountMax=3"),
    # What the user configured for logins would get in the way here.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)


def ssh_command(device: Device, source_bytes: int) -> list[str]:
    """The ssh command that starts an agent; its source, ``source_bytes`` long, comes on stdin."""
    # Reads not one byte more than the source: frames follow it.
    start = (
        "import io;exec(compile(io.BufferedReader(io.FileIO(0,closefd=False),1)"
        f'.read({source_bytes}),"agent","exec"))'
    )
    port = ["-p", str(device.port)] if device.port else []
    command = f"exec {remote_path(device.python)} -u -c '{start}'"
    return ["ssh", *_SSH, *port, *device.options, "--", device.host, command]


def remote_path(path: str) -> str:
    """A path quoted for the device's shell, which still expands a leading ~/."""
    if path.startswith("~/"):
        return "~/" + shlex.quote(path[2:])
    return shlex.quote(path)


def start_failure(device: Device, code: int, words: str) -> EdgekitError:
    """Why the agent did not start, from ssh's exit code and last words."""
    name, host = device.name, device.host
    who = name if name == host else f"{name} ({host})"
    if code == 255:
        return DeviceUnreachable(f"cannot reach {who}: {_advice(words, device)}")
    if code in (126, 127) or "not found" in words.lower():
        return ToolchainMissing(
            f"{who} has no {device.python}: run 'sudo apt-get install python3 "
            "python3-venv' there, or name its Python with 'edgekit device add --python'"
        )
    return EdgekitError(
        f"{who} answered, but {device.python} did not start there: {words or 'no message'}"
    )


def last_words(stderr: Sequence[str]) -> str:
    """The last meaningful line that ssh and the agent wrote to stderr."""
    lines = [line for line in stderr if line and not line.startswith("Warning:")]
    for line in lines:
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in line:
            return "its host key is not the one in known_hosts"
    reasons = [
        line for line in lines if not line.startswith(("Shared connection", "Connection to"))
    ]
    return (reasons or lines or [""])[-1]


def _advice(words: str, device: Device) -> str:
    """ssh's reason, and what to do about it."""
    lower = words.lower()
    if "host key" in lower:
        return (
            f"{words}: run 'ssh {device.host}' once and compare the fingerprint; if the device was "
            "reinstalled, forget its old key with ssh-keygen -R"
        )
    if "permission denied" in lower:
        return f"{words}: run 'ssh-copy-id {device.host}', edgekit never asks for passwords"
    if "could not resolve" in lower:
        return f"{words}: check the name, or 'edgekit device add' it again"
    return f"{words or 'ssh gives no reason'}: check that it is on, and its address and port"
