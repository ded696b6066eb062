"""Asks a device what a monitor that runs there has to say; nothing about the answer is trusted."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import Final

from edgekit.core.documents import DocumentError, parse_json, read
from edgekit.core.errors import DeviceUnreachable, UsageError
from edgekit.devices.answers import InvalidAnswer
from edgekit.devices.deployed import Place, entries, place_named, place_of, read_state
from edgekit.devices.failures import reason, remote_failure
from edgekit.devices.output import Lines
from edgekit.devices.registry import Device
from edgekit.devices.session import Session
from edgekit.field.monitor import Status

_SUFFIX: Final = ".json"
_MOST_LINE: Final = 64 << 10  # bytes; the longest list of alarms takes 20 KB
_SECONDS: Final = 120.0  # between two pieces; the first has to wait for Python and the bundle
_MODULE: Final = "edgekit.devices.remote.watch"


def watch_on_device(
    path: Path | None, device: Device, *, state: str | None = None, follow: bool = False
) -> Generator[Status, None, None]:
    """What the monitor of the bundle named as ``path`` says: once, or every few seconds.

    Without ``path`` it is the only one whose state is where `edgekit watch` keeps it by default.
    A device that answers nonsense counts as one that cannot be reached.
    """
    try:
        with Session(device) as session:
            place = _only_place(session, state) if path is None else place_of(session, path)
            deployed = read_state(session, place.state)
            if deployed is None:
                raise UsageError(
                    f"{device.name} holds no such bundle ({place.name}): 'edgekit deploy' it"
                )
            words = [place.bundle, state or place.watched, *(["--follow"] if follow else [])]
            command = [deployed.python, "-m", _MODULE, *words]
            session.start(command, environment=place.environment)
            if not follow:
                session.end_input()
            yield from _statuses(session)
    except (InvalidAnswer, DocumentError) as error:
        raise DeviceUnreachable(str(error)) from error


def _only_place(session: Session, state: str | None) -> Place:
    name = session.device.name
    if state is not None:
        raise UsageError(f"name the bundle whose monitor keeps its state at {state} on {name}")
    root = session.device.folder
    files = [one for one in entries(session, "watch") if one.endswith(_SUFFIX)]
    if len(files) != 1:
        listed = ", ".join(one.removesuffix(_SUFFIX) for one in files)
        several = f"several monitors ({listed}): name its bundle"
        none = f"no monitor in {root}/watch: start one there with 'edgekit watch ... --state'"
        raise UsageError(f"{name} has {several if files else none}")
    return place_named(session, files[0].removesuffix(_SUFFIX))


def _statuses(session: Session) -> Generator[Status, None, None]:
    name, rest, count = session.device.name, b"", 0
    said: deque[str] = deque(maxlen=20)
    errors = Lines(said.append)
    for stream, data in session.output(_SECONDS):
        if stream == 2:
            errors.feed(data)
            continue
        *lines, rest = (rest + data).split(b"\n")
        if max(map(len, (*lines, rest))) > _MOST_LINE:
            raise InvalidAnswer(f"{name}'s answer (watch) makes no sense: it is too long")
        for line in lines:
            count += 1
            yield _status(line, f"{name}'s answer (watch)")
    errors.finish()
    if session.exit_code:
        if _MODULE in reason(said) or "No module named" in reason(said):
            raise UsageError(f"{name} has the runtime of another edgekit: 'edgekit deploy' again")
        raise remote_failure(name, session.exit_code, said)
    if not count:
        raise InvalidAnswer(f"{name}'s answer (watch) makes no sense: it is empty")


def _status(line: bytes, source: str) -> Status:
    value = parse_json(line, source)
    remedy = "if edgekit there is another release, deploy again"
    return read(Status, value, source, schema=Status.SCHEMA, remedy=remedy)
