"""The same work on several devices in parallel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, TypeVar

from edgekit.core.console import Console
from edgekit.core.errors import DeviceUnreachable, EdgekitError
from edgekit.devices.link import LIMITS, Limits
from edgekit.devices.registry import Device
from edgekit.devices.session import Session

T = TypeVar("T")

_TOTAL: Final = 12 * 3600.0  # seconds for a device's work; an engine takes an hour on the slowest
_GOODBYE: Final = 30.0  # seconds that an abandoned session gets to return


def on_all(
    devices: Sequence[Device],
    console: Console,
    work: Callable[[Session, Console], T],
    *,
    limits: Limits = LIMITS,
    seconds: float = _TOTAL,
) -> list[T | EdgekitError]:
    """Run ``work`` on all devices at once: results or failures, in order.

    Ctrl-C ends the work on all of them before it propagates. A device that has not finished after
    ``seconds`` is abandoned, which counts as its failure.
    """
    sessions: dict[int, Session] = {}

    def one(index: int, device: Device) -> T | EdgekitError:
        device_console = console if len(devices) == 1 else PrefixedConsole.of(console, device.name)
        try:
            session = Session(device, limits)
            sessions[index] = session
            with session:
                return work(session, device_console)
        except EdgekitError as error:
            return error

    with contextlib.ExitStack() as ending:
        pool = ThreadPoolExecutor(len(devices), thread_name_prefix="device")
        ending.callback(pool.shutdown, wait=False, cancel_futures=True)
        ending.callback(_close_all, sessions)
        waiting = [pool.submit(one, *pair) for pair in enumerate(devices)]
        _, late = wait(waiting, seconds)
        reasons = {
            index: DeviceUnreachable(
                f"{device.name} has not finished in {seconds:.0f} s: see what it is busy with, "
                "then run the same command again"
            )
            for index, device in enumerate(devices)
            if waiting[index] in late
        }
        for index, reason in reasons.items():
            if index in sessions:
                sessions[index].give_up(reason)
        wait(late, _GOODBYE)
        return [
            future.result() if future.done() else reasons[index]
            for index, future in enumerate(waiting)
        ]


def _close_all(sessions: dict[int, Session]) -> None:
    for session in list(sessions.values()):
        session.close()


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
