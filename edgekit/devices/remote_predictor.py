"""A comparison's candidate that runs on a device: images go there, answers come back.

Cells, statistics and cached answers stay on the host, so a rerun after a broken link computes only
what is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.console import Console
from edgekit.data.transforms import Preprocessing
from edgekit.devices.answers import Answer, InvalidAnswer
from edgekit.devices.deployed import require_deployed
from edgekit.devices.facts import DeviceFacts, gather_facts
from edgekit.devices.failures import remote_failure
from edgekit.devices.registry import find_device
from edgekit.devices.remote.agent import pack, unpack
from edgekit.devices.remote.serve import KINDS
from edgekit.devices.session import Session
from edgekit.foreign.execution import Execution
from edgekit.runtime.answers import Answers, join

_FRAME_BYTES: Final = 8 << 20  # of images at a time: the device computes while the next travel
_AHEAD: Final = 4  # pieces sent before waiting for the first answer
_MOST_CHUNK: Final = 1 << 16  # images in a piece, whatever the device asks for
_MOST_HEADER: Final = 1 << 20


class _AnswerStream:
    """The stdout of a running server, frame by frame."""

    def __init__(self, session: Session, console: Console) -> None:
        self._session = session
        self._console = console
        self._output = session.output()
        self._buffer = bytearray()
        self._stderr: deque[str] = deque(maxlen=20)

    def frame(self, what: str) -> tuple[Answer, bytes]:
        """The next frame; raises an error that says why if the server ended."""
        name = f"{self._session.device.name}'s answer ({what})"
        try:
            header, payload = unpack(self._read, _MOST_HEADER)
        except ValueError as error:
            raise InvalidAnswer(f"{name} makes no sense: {error}") from error
        return Answer(header, name), payload

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            stream, data = next(self._output, (0, b""))
            if stream == 1:
                self._buffer += data
            elif stream == 2:
                for line in data.decode(errors="replace").splitlines():
                    self._stderr.append(line)
                    self._console.detail(line)
            else:
                raise remote_failure(
                    self._session.device.name, self._session.exit_code, list(self._stderr)
                )
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


@dataclass(frozen=True)
class DevicePredictor:
    """A bundle in its own runtime on a device; a `Predictor` as `edgekit.parity` knows them."""

    name: str
    key: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: str
    training: str
    execution: Execution
    """What really computes there."""
    session: Session = field(repr=False)
    answering: _AnswerStream = field(repr=False)
    chunk: int
    """Images a frame."""

    def run(self, images: NDArray[np.uint8]) -> Answers:
        """Send all, in pieces, then take the answers in their order."""
        pieces = np.array_split(images, max(1, -(-len(images) // self.chunk)))
        answers: list[Answers] = []
        for sent, piece in enumerate(pieces, start=1):
            self.session.feed(pack({"images": len(piece)}, piece.tobytes()))
            if sent > _AHEAD:  # answers that nobody takes would fill this machine's memory
                answers.append(self._answer(len(pieces[len(answers)])))
        return join([*answers, *(self._answer(len(piece)) for piece in pieces[len(answers) :])])

    def _answer(self, count: int) -> Answers:
        header, payload = self.answering.frame("of the model")
        answers = unpack_answers(header, payload)
        fits = answers.logits.shape == (count, len(self.classes))
        for values in (answers.code, answers.margin):
            fits = fits and (values is None or values.shape[:1] == (count,))
        if not fits:
            raise InvalidAnswer(f"{header.name} is for other images than the ones sent")
        return answers


@dataclass(frozen=True)
class Served:
    """What a server on a device reports about its model."""

    name: str
    key: str
    identity: str
    chunk: int
    """Images in a piece that keeps it busy."""


def unpack_answers(header: Answer, payload: bytes) -> Answers:
    """The inverse of `edgekit.devices.remote.serve.pack_answers`."""
    arrays: dict[str, NDArray[Any] | None] = {}
    offset = 0
    for name, kind in KINDS.items():
        shape_item = header.item("shapes").item(name)
        arrays[name] = None
        if shape_item.value is not None:
            shape = [side.number() for side in shape_item.listed()]
            count = math.prod(shape)
            if offset + count * np.dtype(kind).itemsize > len(payload):
                raise InvalidAnswer(f"{shape_item.name} makes no sense: its payload is too short")
            values = np.frombuffer(payload, kind, count, offset)
            arrays[name] = values.reshape(shape)
            offset += values.nbytes
    if arrays["logits"] is None or offset != len(payload):
        raise InvalidAnswer(f"{header.name} makes no sense: logits are missing, or bytes left over")
    return Answers(arrays["logits"], arrays["code"], arrays["margin"])


@contextlib.contextmanager
def device_predictor(
    session: Session, bundle: Bundle, console: Console
) -> Iterator[DevicePredictor]:
    """A predictor that runs the bundle on the device, where it must be deployed."""
    from edgekit.core.typed_toml import from_dict
    from edgekit.model.card import TrainingProtocol

    place, python = require_deployed(session, bundle)
    session.lock(place.lock, shared=True)
    facts = gather_facts(session, place.root)
    session.start(
        [python, "-m", "edgekit.devices.remote.serve", place.bundle], environment=place.environment
    )
    answering = _AnswerStream(session, console)
    header = answering.frame("of the server")[0]
    served = header.fill(Served)
    manifest = bundle.manifest
    size = manifest.preprocessing.size
    yield DevicePredictor(
        name=f"{served.name} on {session.device.name}",
        key=f"{served.key} on {device_key(facts)}",
        preprocessing=manifest.preprocessing,
        classes=bundle.labels,
        source=manifest.source.checkpoint,
        training=from_dict(
            TrainingProtocol, manifest.model.get("training", {}), str(bundle.path)
        ).describe_seen(),
        execution=_execution(header.table().get("execution"), served.name),
        session=session,
        answering=answering,
        chunk=max(min(served.chunk, _MOST_CHUNK), _FRAME_BYTES // (size[0] * size[1] * 3)),
    )
    session.end_input()
    for _ in session.output():  # until it has ended
        pass


def _execution(answer: Answer | None, name: str) -> Execution:
    """What the server says of its runtime; one of an earlier edgekit says nothing."""
    if answer is None:
        return Execution(name, ())
    asked = answer.item("asked")
    return Execution(
        answer.item("runtime").text(),
        tuple(device.text() for device in answer.item("devices").listed()),
        answer.item("detail").text(),
        asked=None if asked.value is None else asked.text(),
        fell_back=answer.item("fell_back").flag(),
    )


@contextlib.contextmanager
def on_device(name: str, path: Path, console: Console) -> Iterator[DevicePredictor]:
    """A predictor for the bundle at ``path``, which must be deployed on the named device."""
    bundle = open_bundle(path, any_arch=True)
    with (
        Session(find_device(name)) as session,
        device_predictor(session, bundle, console) as predictor,
    ):
        yield predictor


def device_key(facts: DeviceFacts) -> str:
    """Identifies the machine itself, not its address: its cached answers fit no other machine."""
    parts = [facts.machine_id, facts.machine, facts.cpu, facts.gpu]
    if not facts.machine_id:
        parts.append(facts.hostname)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
