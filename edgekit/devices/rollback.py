"""Puts back what the last deploy replaced on a device: tested again, and nothing is copied."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.bundle.engine import EngineState
from edgekit.bundle.manifest import MANIFEST, Manifest, parse_manifest
from edgekit.bundle.signature import SIGNATURE, Signer
from edgekit.bundle.store import Bundle
from edgekit.core.console import Console
from edgekit.core.documents import Document
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.compatibility import check_fit
from edgekit.devices.deploy import (
    FailedDeployment,
    check_signature,
    own_signers,
    refuse_rollback,
    run_module,
)
from edgekit.devices.deployed import DeployState, Place, entries, place_named, place_of, read_state
from edgekit.devices.facts import gather_facts
from edgekit.devices.fleet import on_all
from edgekit.devices.install import ensure_runtime
from edgekit.devices.registry import Device
from edgekit.devices.remote import files as remote_files
from edgekit.devices.remote.place import RECORD
from edgekit.devices.session import Session


@dataclass(frozen=True)
class Rollback:
    """A bundle that is in its place again."""

    device: str
    bundle: str
    """Its folder on the device."""
    runtime: str
    """The environment's folder on the device."""
    selftest: str
    seconds: float


@dataclass(frozen=True)
class Rollbacks(Document):
    """The outcome on every device."""

    SCHEMA: ClassVar = 1

    devices: tuple[Rollback | FailedDeployment, ...]


def roll_back_all(
    path: Path | None,
    devices: Sequence[Device],
    console: Console,
    *,
    wheels: Path | None = None,
    signers: Path | None = None,
    allow_rollback: bool = False,
) -> list[Rollback | EdgekitError]:
    """Roll back the bundle that has the name of ``path``, or the only one that can be.

    Signatures count as for a deploy; a failure does not affect the other devices.
    """

    def one(session: Session, device_console: Console) -> Rollback:
        return roll_back(
            path,
            session,
            device_console,
            wheels=wheels,
            signers=signers,
            allow_rollback=allow_rollback,
        )

    return on_all(devices, console, one)


def roll_back(
    path: Path | None,
    session: Session,
    console: Console,
    *,
    wheels: Path | None = None,
    signers: Path | None = None,
    allow_rollback: bool = False,
) -> Rollback:
    """See `roll_back_all`, of the device of an open ``session``."""
    start = time.monotonic()
    place = _only_place(session) if path is None else place_of(session, path)
    session.lock(place.lock)
    text = _read(session, f"{place.previous}/{MANIFEST}")
    if text is None:
        raise _nothing(session, place.name)
    if text == _read(session, f"{place.bundle}/{MANIFEST}") and read_state(session, place.state):
        session.call(remote_files, "remove", place.root, place.previous)  # what is in its place
        raise _nothing(session, place.name)
    manifest = parse_manifest(text.encode(), f"{session.device.name}: {place.previous}")
    _check_engine(session, place, manifest, signers)
    signer = _signer(session, place, manifest, signers)
    if signer is not None and not allow_rollback:
        refuse_rollback(session, place, signer)
    facts = gather_facts(session, place.root)
    check_fit(manifest, session.device, facts)
    runtime = ensure_runtime(session, place.root, manifest.runtime, facts, wheels, console)
    record = read_state(session, f"{place.previous}/{RECORD}")
    digest = hashlib.sha256(text.encode()).hexdigest()
    words = [place.previous, digest, place.bundle, place.state]
    words += own_signers(session, place, allow_rollback)
    tested = run_module(session, place, runtime, "devices.remote.previous", *words).strip()
    console.info(tested)
    # Without a record the next deploy copies and tests what it would have found to be there.
    key = "" if record is None else record.key
    state = DeployState(key, runtime.stamp, runtime.python, tested)
    session.call(remote_files, "write", place.root, place.state, state.to_json())
    session.call(remote_files, "remove", place.root, place.previous)
    return Rollback(
        session.device.name, place.bundle, runtime.folder, tested, time.monotonic() - start
    )


def _only_place(session: Session) -> Place:
    names = entries(session, "previous")
    if not names:
        raise _nothing(session)
    if len(names) > 1:
        raise UsageError(
            f"{session.device.name} can roll back several bundles ({', '.join(sorted(names))}): "
            f"name one, such as 'edgekit deploy {names[0]} --rollback'"
        )
    return place_named(session, names[0])


def _nothing(session: Session, name: str = "") -> UsageError:
    of = f" for {name}" if name else ""
    return UsageError(
        f"{session.device.name} has nothing to roll back to{of}: it keeps a bundle that passed its "
        "self-test there once a deploy has replaced it"
    )


def _read(session: Session, path: str) -> str | None:
    return session.call(remote_files, "read", path).text_or_none()


def _check_engine(session: Session, place: Place, manifest: Manifest, signers: Path | None) -> None:
    """A device that built an engine has changed what was signed, and nobody can check it again."""
    device = session.device
    demanded = (
        bool(signers or device.signers or device.require_signature)
        or session.call(remote_files, "there", place.signers).flag()
    )
    if demanded and EngineState.of(manifest) is not None:
        raise UsageError(
            f"{device.name} built an engine for the {place.name} that it keeps, so its signature "
            "no longer tells: deploy the signed bundle again"
        )


def _signer(
    session: Session, place: Place, manifest: Manifest, signers: Path | None
) -> Signer | None:
    """Who signed what is kept there; the device itself checks that it has the manifest's files."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        folder = Path(name)
        signature = _read(session, f"{place.previous}/{SIGNATURE}")
        (folder / SIGNATURE).write_text(signature or "", encoding="utf-8")
        kept = Path(f"{session.device.name}: {place.previous}")
        return check_signature(Bundle(kept, folder, manifest, ()), session.device, signers)
