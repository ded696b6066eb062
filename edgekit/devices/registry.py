"""The user's devices by name, in one TOML file in their configuration folder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from edgekit.core.documents import Document
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import make_folder, write_text
from edgekit.core.folders import locked
from edgekit.core.typed_toml import nearest, read_toml, to_toml
from edgekit.devices.host_keys import weakening

FOLDER: Final = "~/.edgekit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_\[:][A-Za-z0-9._:%\]-]*")


@dataclass(frozen=True)
class Device:
    """How a device is reached, and what edgekit uses there."""

    name: str
    host: str
    """``user@host``, or a host of the user's ssh configuration."""
    port: int = 0
    """0: the port in ssh's configuration."""
    descriptor: str = ""
    """The target that bundles must be built for; "" accepts any that fits."""
    python: str = "python3"
    """The device's Python, 3.10 or newer."""
    folder: str = FOLDER
    """Holds everything that edgekit puts there."""
    options: tuple[str, ...] = ()
    """Arguments for ssh, before the host."""
    signers: str = ""
    """An allowed_signers file: the device accepts only bundles signed by somebody in it."""
    require_signature: bool = False
    """Accept nothing without such a file, here or on the command line."""

    def __post_init__(self) -> None:
        """Refuse values that ssh or the remote shell would misread."""
        if not _HOST.fullmatch(self.host):
            raise UsageError(
                f"'{self.host}' is not a host: use user@host, or a host of your ssh config"
            )
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port {self.port} is out of range: use 1 to 65535")
        for name in ("python", "folder"):
            text = getattr(self, name)
            if not text or not text.isprintable() or "'" in text:
                raise UsageError(f"device {self.name}: {name} {text!r} is not a usable path")
        if (option := weakening(self.options)) is not None:
            raise UsageError(
                f"'{option}' would let anyone impersonate {self.name}: add its key to known_hosts "
                f"instead (run 'ssh {self.host}' once and compare the fingerprint)"
            )
        for text in (self.name, self.descriptor, *self.options):
            if not text.isprintable():  # TOML cannot store it, and ssh has no use for it
                raise UsageError(f"device {self.name!r}: {text!r} has unprintable characters")


@dataclass(frozen=True)
class DeviceList(Document):
    """The registered devices."""

    SCHEMA: ClassVar = 1

    devices: tuple[Device, ...]


@dataclass(frozen=True)
class AddedDevice(Document):
    """A device that was registered."""

    SCHEMA: ClassVar = 1

    name: str
    host: str
    replaced: bool
    """Whether the name had been taken."""


@dataclass(frozen=True)
class RemovedDevice(Document):
    """A device that is no longer registered."""

    SCHEMA: ClassVar = 1

    name: str


@dataclass(frozen=True)
class _File:
    device: tuple[Device, ...] = ()


def registry_path() -> Path:
    """$EDGEKIT_DEVICES, or devices.toml in edgekit's configuration folder."""
    if chosen := os.environ.get("EDGEKIT_DEVICES"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "edgekit" / "devices.toml"


def devices() -> dict[str, Device]:
    """The registered devices by name, in the order they were added."""
    path = registry_path()
    if not path.exists():
        return {}
    return {device.name: device for device in read_toml(path, _File).device}


def add_device(device: Device) -> bool:
    """Register a device; True if it replaced one of that name."""
    if not _NAME.fullmatch(device.name):
        raise UsageError(f"'{device.name}' is not a valid device name: use letters, digits, ._-")
    with _alone():
        known = devices()
        _save({**known, device.name: device})
    return device.name in known


def remove_device(name: str) -> Device:
    """Forget a device; nothing changes on the device itself."""
    with _alone():
        known = devices()
        if name not in known:
            raise UsageError(_unknown(name, list(known)))
        removed = known.pop(name)
        _save(known)
    return removed


def find_device(name: str) -> Device:
    """The device of this name; ``user@host`` needs no registration."""
    known = devices()
    if name in known:
        return known[name]
    for device in known.values():
        if device.host == name:
            return replace(device, name=name)
    if "@" in name:
        return Device(name, name)
    raise UsageError(_unknown(name, list(known)))


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return f"unknown device '{name}': run 'edgekit device add {name} user@host'"
    return f"unknown device '{name}'{nearest(name, known)}: 'edgekit device list' shows them"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Others who change the list wait: each would write it without what the other adds."""
    path = registry_path()
    try:
        make_folder(path.parent)
        with locked(path.parent):
            yield
    except OSError as error:
        raise EdgekitError(f"cannot write {path}: {error.strerror or error}") from error


def _save(known: dict[str, Device]) -> None:
    tables = [f"[[device]]\n{to_toml(device)}" for device in known.values()]
    write_text(registry_path(), "\n".join(tables))
