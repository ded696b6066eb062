"""Copies files to a device by hash: files already there are reused, partial copies resume."""

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
    """A file to copy, identified by its hash; the name is for messages."""

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
    """What a copy transferred."""

    files: int
    bytes: int  # sent now, without what an earlier, broken copy had sent
    kept: int  # files that were there


@dataclass(frozen=True)
class _RemoteFile:
    """What a device has of a file: all, or a part with its hash."""

    whole: bool
    bytes: int = 0
    sha256: str = ""

    @staticmethod
    def of(answer: Answer) -> _RemoteFile:
        if answer.item("whole").flag():
            return _RemoteFile(whole=True)
        return _RemoteFile(False, answer.item("bytes").number(), answer.item("sha256").text())


def send(
    session: Session, root: str, staging: str, present: str, blobs: Sequence[Blob], console: Console
) -> Copied:
    """Copy ``blobs`` into the folder ``staging`` below ``root``; ``present`` may have some already.

    The device checks every hash. A copy that breaks off resumes there when called again.
    """
    table = {blob.name: [blob.sha256, blob.size] for blob in blobs}
    survey = session.call(remote_files, "survey", root, staging, present, table)
    remote = {blob.name: _RemoteFile.of(survey.item(blob.name)) for blob in blobs}
    missing = {blob.sha256: blob for blob in blobs if not remote[blob.name].whole}
    total = sum(blob.size for blob in missing.values())
    sent = 0
    for blob in missing.values():
        partial = remote[blob.name]
        matches = 0 < partial.bytes <= blob.size and partial.sha256 == blob.prefix_sha256(
            partial.bytes
        )
        offset = partial.bytes if matches else 0
        if offset:
            console.info(f"copy: {blob.name} resumes at {_megabytes(offset)}")
        try:
            sent += _send_one(session, staging, blob, offset, console)
        except RemoteError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise EdgekitError(
                f"{session.device.name}: no space left in {staging} for {blob.name}: "
                f"the copy needs {_megabytes(total)}; make room and run again"
            ) from error
    return Copied(len(missing), sent, len(blobs) - len(missing))


def _send_one(session: Session, staging: str, blob: Blob, offset: int, console: Console) -> int:
    for start in dict.fromkeys((offset, 0)):  # a part that turns out wrong is copied again from 0
        sent = _send_blocks(session, staging, blob, start, console)
        if session.call(remote_files, "finish", staging, blob.sha256).flag():
            return sent
    raise EdgekitError(
        f"{session.device.name}: {blob.name} arrived changed: check the file here, and the disk "
        "there"
    )


def _send_blocks(session: Session, staging: str, blob: Blob, offset: int, console: Console) -> int:
    begin = offset
    in_flight = 0
    reported = time.monotonic()
    for block in blob.blocks(offset):
        session.post(remote_files, "put", staging, blob.sha256, offset, payload=block)
        offset += len(block)
        in_flight += 1
        if in_flight == _IN_FLIGHT:
            session.reply()
            in_flight -= 1
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            console.info(f"copy: {blob.name} {_megabytes(offset)} of {_megabytes(blob.size)}")
    for _ in range(in_flight):
        session.reply()
    return offset - begin


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
