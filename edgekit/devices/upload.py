"""Copies files to a device by their hashes: what is there is used, what was begun goes on."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError
from edgekit.devices.answers import Answer
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import RemoteError, Session

_BLOCK: Final = 1 << 18
_IN_FLIGHT: Final = 16  # blocks sent before the first is confirmed
_REPORT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Blob:
    """A file to be copied; its name is for messages, its hash is what it is."""

    name: str
    sha256: str
    size: int  # bytes
    source: Path | bytes

    def blocks(self, offset: int) -> Iterator[bytes]:
        """The content from ``offset`` on."""
        if isinstance(self.source, bytes):
            for start in range(offset, self.size, _BLOCK):
                yield self.source[start : start + _BLOCK]
            return
        with self.source.open("rb") as stream:
            stream.seek(offset)
            while block := stream.read(_BLOCK):
                yield block

    def prefix_sha256(self, length: int) -> str:
        """Hash of the first ``length`` bytes."""
        total = hashlib.sha256()
        for block in self.blocks(0):
            total.update(block[:length])
            length -= len(block)
            if length <= 0:
                break
        return total.hexdigest()


@dataclass(frozen=True)
class Copied:
    """What a copy took."""

    files: int
    bytes: int  # sent; what an earlier, broken copy had brought is not among them
    kept: int  # files that were there


@dataclass(frozen=True)
class _There:
    """What a device has of a file: all, or a part with its hash."""

    whole: bool
    bytes: int = 0
    sha256: str = ""

    @staticmethod
    def of(answer: Answer) -> _There:
        if answer.item("whole").flag():
            return _There(whole=True)
        return _There(False, answer.item("bytes").number(), answer.item("sha256").text())


def send(
    session: Session, root: str, staging: str, present: str, blobs: Sequence[Blob], console: Console
) -> Copied:
    """Bring ``blobs`` into the folder ``staging`` below ``root``; ``present`` may have some.

    The device checks every hash. Broken off at any point, it goes on there when called again.
    """
    table = {blob.name: [blob.sha256, blob.size] for blob in blobs}
    survey = session.call(remote_files, "survey", root, staging, present, table)
    found = {blob.name: _There.of(survey.item(blob.name)) for blob in blobs}
    wanted = {blob.sha256: blob for blob in blobs if not found[blob.name].whole}
    todo = sum(blob.size for blob in wanted.values())
    sent = 0
    for blob in wanted.values():
        there = found[blob.name]
        known = 0 < there.bytes <= blob.size and there.sha256 == blob.prefix_sha256(there.bytes)
        offset = there.bytes if known else 0
        if offset:
            console.info(f"copy: {blob.name} goes on at {_megabytes(offset)}")
        try:
            sent += _send_one(session, staging, blob, offset, console)
        except RemoteError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise EdgekitError(
                f"{session.device.name}: no space left in {staging} for {blob.name}: "
                f"{_megabytes(todo)} are to be copied; make room and run again"
            ) from error
    return Copied(len(wanted), sent, len(blobs) - len(wanted))


def _send_one(session: Session, staging: str, blob: Blob, offset: int, console: Console) -> int:
    for start in dict.fromkeys((offset, 0)):  # a part that turns out wrong is copied anew
        sent = _send_blocks(session, staging, blob, start, console)
        if session.call(remote_files, "finish", staging, blob.sha256).flag():
            return sent
    raise EdgekitError(
        f"{session.device.name}: {blob.name} arrives changed: check the file here, and the disk "
        "there"
    )


def _send_blocks(session: Session, staging: str, blob: Blob, offset: int, console: Console) -> int:
    begin = offset
    waiting = 0
    said = time.monotonic()
    for block in blob.blocks(offset):
        session.post(remote_files, "put", staging, blob.sha256, offset, payload=block)
        offset += len(block)
        waiting += 1
        if waiting == _IN_FLIGHT:
            session.reply()
            waiting -= 1
        if time.monotonic() - said > _REPORT_SECONDS:
            said = time.monotonic()
            console.info(f"copy: {blob.name} {_megabytes(offset)} of {_megabytes(blob.size)}")
    for _ in range(waiting):
        session.reply()
    return offset - begin


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
