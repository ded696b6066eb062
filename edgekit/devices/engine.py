"""Builds a TensorRT bundle's engine on its device, with the script that this edgekit writes."""

from __future__ import annotations

from collections import deque

from edgekit.bundle.engine import SCRIPT, EngineState, engine_pending
from edgekit.bundle.manifest import MANIFEST, parse_manifest
from edgekit.bundle.store import Bundle
from edgekit.compilers.device_build import check_device_build
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.devices.deployed import Place
from edgekit.devices.failures import remote_failure
from edgekit.devices.install import Runtime
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import Session


def check_engine_build(bundle: Bundle) -> None:
    """Refuse a bundle that would run anything on the device but edgekit's own script."""
    if not engine_pending(bundle.manifest):
        return
    backend = bundle.manifest.target.backend
    if backend != "tensorrt":
        raise UsageError(
            f"{bundle.path} asks for an engine build, but {backend} has no engines: do not trust it"
        )
    check_device_build(bundle.folder, bundle.manifest, str(bundle.path))


def build_engine(
    session: Session, place: Place, runtime: Runtime, bundle: Bundle, console: Console
) -> str:
    """Build the engine if there is none yet; the engine state in the manifest on the device."""
    local = EngineState.of(bundle.manifest)
    if local is None or not local.pending:
        return "" if local is None else local.describe()
    remote = _state_there(session, place)
    if not remote.pending:
        return remote.describe()
    check_engine_build(bundle)
    script = f"{place.bundle}/{SCRIPT}"
    entry = bundle.manifest.files[SCRIPT]
    if not session.call(remote_files, "same", script, entry.sha256, entry.size).flag():
        raise EdgekitError(f"{session.device.name}: {script} was changed there: deploy again")
    console.info("engine: building on the device, this takes minutes")
    command = 'PATH="$1/bin:$PATH" exec bash "$2"'
    lines: deque[str] = deque(maxlen=200)

    def take(line: str) -> None:
        lines.append(line)
        console.info(f"engine: {line}")

    code, _ = session.run(
        ["sh", "-c", command, "sh", runtime.folder, script],
        on_line=take,
        environment=place.environment,
    )
    if code:
        raise remote_failure(session.device.name, code, list(lines))
    return _state_there(session, place).describe()


def _state_there(session: Session, place: Place) -> EngineState:
    """What the bundle's manifest on the device says."""
    name = f"{session.device.name}: {place.bundle}"
    text = session.call(remote_files, "read", f"{place.bundle}/{MANIFEST}").text_or_none() or ""
    state = EngineState.of(parse_manifest(text.encode(), name))
    if state is None:
        raise EdgekitError(f"{name} names no engine: deploy again")
    return state
