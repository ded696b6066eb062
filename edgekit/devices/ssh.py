"""The user's own ssh: how it is called, and what its failures mean."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from edgekit.core.errors import DeviceUnreachable, EdgekitError, ToolchainMissing
from edgekit.devices.registry import Device

_CONNECT_SECONDS: Final = 20
_ALIVE_SECONDS: Final = 10  # between ssh's own signs of life; three missing end the connection
_SSH: Final = (
    "-T",
    # ssh takes the first value that it is given: nothing behind these, in options or files,
    # brings back a connection to a host whose key is unknown.
    *("-o", "StrictHostKeyChecking=yes", "-o", "VerifyHostKeyDNS=no"),
    *("-o", "NoHostAuthenticationForLocalhost=no"),
    # A question that nobody sees would hang for ever; keys and agents need none.
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={_CONNECT_SECONDS}"),
    *("-o", f"ServerAliveInterval={_ALIVE_SECONDS}", "-o", "ServerAliveCountMax=3"),
    # What the user's configuration opens for logins would get in the way here.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)


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


def refused(device: Device, code: int, said: str) -> EdgekitError:
    """Why the agent did not start, from ssh's exit code and last words."""
    name, host = device.name, device.host
    who = name if name == host else f"{name} ({host})"
    if code == 255:
        return DeviceUnreachable(f"cannot reach {who}: {_advice(said, device)}")
    if code in (126, 127) or "not found" in said.lower():
        return ToolchainMissing(
            f"{who} has no {device.python}: run 'sudo apt-get install python3 "
            "python3-venv' there, or name its Python with 'edgekit device add --python'"
        )
    return EdgekitError(
        f"{who} answered, but {device.python} did not start there: {said or 'no message'}"
    )


def last_words(stderr: Sequence[str]) -> str:
    """The last line that matters of what ssh and the agent wrote to stderr."""
    lines = [line for line in stderr if line and not line.startswith("Warning:")]
    for line in lines:
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in line:
            return "its host key is not the one in known_hosts"
    kept = [line for line in lines if not line.startswith(("Shared connection", "Connection to"))]
    return (kept or lines or [""])[-1]


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
