"""Puts a bundle on a device, ready to run: runtime, files, engine, self-test."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from edgekit.bundle.engine import EngineState
from edgekit.bundle.manifest import MANIFEST
from edgekit.bundle.signature import SIGNATURE, Signer, refuse_older, standing_sequence, verify
from edgekit.bundle.store import Bundle, open_bundle
from edgekit.core.console import Console
from edgekit.core.documents import Document
from edgekit.core.errors import DeviceUnreachable, EdgekitError, UsageError, error_of
from edgekit.core.files import file_sha256
from edgekit.devices.compatibility import check_fit
from edgekit.devices.deployed import DeployState, Place, deployment_key, place_of, read_state
from edgekit.devices.engine import build_engine, check_engine_build
from edgekit.devices.facts import DeviceFacts, gather_facts
from edgekit.devices.failures import remote_failure
from edgekit.devices.fleet import on_all
from edgekit.devices.install import Runtime, ensure_runtime
from edgekit.devices.registry import Device
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import Session
from edgekit.devices.upload import Blob, Copied, send

T = TypeVar("T")
_LAST_LINES: Final = 200  # of a command's output, for its error message
_PLACE: Final = "devices.remote.place"


@dataclass(frozen=True)
class Deployment:
    """A bundle on a device, and what it took to get it there."""

    device: str
    bundle: str
    """Its folder on the device."""
    runtime: str
    """The environment's folder on the device."""
    installed: bool
    """Whether the runtime was installed or changed."""
    files: int
    """Files copied."""
    bytes: int
    """Their size."""
    kept: int
    """Files that were there already."""
    engine: str
    """The engine state in the manifest on the device; "" for bundles without an engine."""
    selftest: str
    up_to_date: bool
    """Whether there was nothing to do."""
    seconds: float


@dataclass(frozen=True)
class FailedDeployment:
    """Why a device has no bundle."""

    device: str
    error: str
    exit_code: int
    """The command's, had this been the only device."""


@dataclass(frozen=True)
class Deployments(Document):
    """The outcome on every device."""

    SCHEMA: ClassVar = 1

    bundle: Path
    devices: tuple[Deployment | FailedDeployment, ...]


def outcomes(
    devices: Sequence[Device], results: Sequence[T | EdgekitError]
) -> tuple[T | FailedDeployment, ...]:
    """A document's entries: each device's result, or why it has none."""
    return tuple(
        FailedDeployment(device.name, str(result), result.exit_code)
        if isinstance(result, EdgekitError)
        else result
        for device, result in zip(devices, results, strict=True)
    )


def deploy(
    bundle: Bundle,
    session: Session,
    console: Console,
    *,
    wheels: Path | None = None,
    signer: Signer | None = None,
    allow_rollback: bool = False,
) -> Deployment:
    """Deploy ``bundle`` to the device of an open ``session``.

    ``signer`` vouches for it, if anybody has to; then nothing with a larger sequence number is
    replaced, unless ``allow_rollback``.
    """
    start = time.monotonic()
    device, manifest = session.device, bundle.manifest
    place = place_of(session, bundle.path)
    facts = gather_facts(session, place.root)
    check_fit(manifest, device, facts)
    check_engine_build(bundle)
    session.lock(place.lock)
    blobs = _blobs(bundle)
    key = deployment_key(manifest)
    state = read_state(session, place.state)
    known = state is not None and state.key == key
    there = known and session.call(remote_files, "whole", place.bundle).flag()
    if not there:
        if signer is not None and not allow_rollback:
            refuse_rollback(session, place, signer)
        _check_room(blobs, device.name, facts)
    runtime = ensure_runtime(session, place.root, manifest.runtime, facts, wheels, console)
    copied = Copied(0, 0, len(blobs))
    if not there:
        copied = send(session, place.root, place.staging, place.bundle, blobs, console)
        console.info(
            f"copy: {copied.files} files, {copied.bytes / 1e6:.1f} MB; {copied.kept} already there"
        )
        _place(session, place, runtime, blobs[0].sha256, allow_rollback)
    elif (
        EngineState.of(manifest) is None
        and session.call(remote_files, "there", place.signers).flag()
    ):
        run_module(session, place, runtime, _PLACE, "--verify", place.bundle, place.signers)
    with _advising(session, place):
        engine = build_engine(session, place, runtime, bundle, console)
        if there and state is not None and state.runtime == runtime.stamp and state.selftest:
            console.info("up to date")
        else:
            tested = run_module(session, place, runtime, "runtime.selftest", place.bundle).strip()
            console.info(tested)
            state = DeployState(key, runtime.stamp, runtime.python, tested)
            session.call(remote_files, "write", place.root, place.state, state.to_json())
    return Deployment(
        device=device.name,
        bundle=place.bundle,
        runtime=runtime.folder,
        installed=runtime.installed,
        files=copied.files,
        bytes=copied.bytes,
        kept=copied.kept,
        engine=engine,
        selftest=state.selftest,
        up_to_date=there and not runtime.installed,
        seconds=time.monotonic() - start,
    )


def deploy_all(
    path: Path,
    devices: Sequence[Device],
    console: Console,
    *,
    wheels: Path | None = None,
    signers: Path | None = None,
    allow_rollback: bool = False,
) -> list[Deployment | EdgekitError]:
    """Deploy to several devices in parallel; a failure does not affect the others.

    ``signers`` overrides the files that the devices' entries name; ``allow_rollback`` permits a
    smaller sequence number than that of the bundle there.
    """
    bundle = open_bundle(path, any_arch=True)

    def one(session: Session, device_console: Console) -> Deployment:
        signer = check_signature(bundle, session.device, signers)
        return deploy(
            bundle,
            session,
            device_console,
            wheels=wheels,
            signer=signer,
            allow_rollback=allow_rollback,
        )

    return on_all(devices, console, one)


def check_signature(bundle: Bundle, device: Device, signers: Path | None) -> Signer | None:
    """Who signed it; an error unless this device trusts them. None if anything is accepted."""
    trusted = signers or (Path(device.signers).expanduser() if device.signers else None)
    if trusted is not None:
        return verify(bundle, trusted)
    if device.require_signature:
        raise UsageError(
            f"{device.name} accepts signed bundles only, and its signers are unknown: "
            "give --signers FILE"
        )
    return None


def refuse_rollback(session: Session, place: Place, signer: Signer) -> None:
    """Nothing is copied that may not replace what is there."""
    text = session.call(remote_files, "read", f"{place.bundle}/{SIGNATURE}").text_or_none()
    standing = None if text is None else standing_sequence(text)
    if standing is not None:
        why = f"{session.device.name} has number {standing}"
        refuse_older(signer, standing, place.name, why)


@contextlib.contextmanager
def _advising(session: Session, place: Place) -> Iterator[None]:
    """A bundle that does not work there is in its place already: say how to get rid of it."""
    try:
        yield
    except DeviceUnreachable:
        raise
    except EdgekitError as error:
        if not session.call(remote_files, "there", place.previous).flag():
            raise
        command = f"edgekit deploy {place.name} --rollback --device {session.device.name}"
        text = f"{error}; the bundle before it is kept: '{command}' puts it back"
        raise error_of(error.exit_code, text) from error


def _place(
    session: Session, place: Place, runtime: Runtime, manifest: str, allow_rollback: bool
) -> None:
    """Make the staged files the bundle, if the device's own list of signers allows that."""
    words = [place.staging, manifest, place.bundle, "--keep", place.state, place.previous]
    words += own_signers(session, place, allow_rollback)
    try:
        run_module(session, place, runtime, _PLACE, *words)
    except UsageError:  # refused for what it is: nothing of it is kept for another try
        session.call(remote_files, "remove", place.root, place.staging)
        raise
    session.call(remote_files, "remove", place.root, place.staging)


def own_signers(session: Session, place: Place, allow_rollback: bool) -> list[str]:
    """Options by which the device heeds its own list, if it has one."""
    if not session.call(remote_files, "there", place.signers).flag():
        return []
    return ["--signers", place.signers, *(["--allow-rollback"] if allow_rollback else [])]


def _blobs(bundle: Bundle) -> list[Blob]:
    """The manifest first, then the files it lists, be they reports that no device reads.

    Opening the bundle there checks every file of its manifest. Without the reports it would need a
    manifest of its own, and no longer be the bundle that was built.
    """
    manifest = bundle.folder / MANIFEST
    blobs = [Blob(MANIFEST, file_sha256(manifest), manifest.stat().st_size, manifest)]
    blobs += [
        Blob(name, entry.sha256, entry.size, bundle.folder / name)
        for name, entry in bundle.manifest.files.items()
    ]
    return blobs


def _check_room(blobs: list[Blob], name: str, facts: DeviceFacts) -> None:
    needed, free = sum(blob.size for blob in blobs), facts.free_bytes
    if free < needed:
        raise EdgekitError(
            f"{name} has {free / 1e6:.1f} MB free, the bundle takes {needed / 1e6:.1f}: make room, "
            "or choose another place with 'edgekit device add --folder'"
        )


def run_module(session: Session, place: Place, runtime: Runtime, module: str, *words: str) -> str:
    """Run one of edgekit's own modules in the device's runtime; returns its output."""
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    code, output = session.run(
        [runtime.python, "-m", f"edgekit.{module}", *words],
        on_line=lines.append,
        environment=place.environment,
    )
    if code:
        raise remote_failure(session.device.name, code, list(lines))
    return output
