"""The same work on several devices side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.devices.registry import Device
from edgekit.devices.session import Session

T = TypeVar("T")


def on_all(
    devices: Sequence[Device], console: Console, work: Callable[[Session, Console], T]
) -> list[T | EdgekitError]:
    """``work`` on every device at a time: results or failures, in order.

    Ctrl-C ends the work on all of them before it is passed on.
    """
    sessions: list[Session] = []

    def one(device: Device) -> T | EdgekitError:
        said = console if len(devices) == 1 else PrefixedConsole.of(console, device.name)
        try:
            session = Session(device)
            sessions.append(session)
            with session:
                return work(session, said)
        except EdgekitError as error:
            return error

    with ThreadPoolExecutor(len(devices), thread_name_prefix="device") as pool:
        waiting = [pool.submit(one, device) for device in devices]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            for future in waiting:
                future.cancel()
            for session in sessions:
                with contextlib.suppress(OSError):
                    session.close()
            raise


@dataclass(frozen=True)
class PrefixedConsole(Console):
    """A console whose lines begin with a device's name."""

    prefix: str = ""

    @classmethod
    def of(cls, console: Console, name: str) -> PrefixedConsole:
        """``console`` for one of several devices."""
        return cls(console.as_json, console.verbosity, f"{name}: ")

    def info(self, message: str) -> None:
        """See `Console`."""
        super().info(self.prefix + message)

    def detail(self, message: str) -> None:
        """See `Console`."""
        super().detail(self.prefix + message)

    def warn(self, message: str) -> None:
        """See `Console`."""
        super().warn(self.prefix + message)
