"""Puts a bundle on a device, ready to run: runtime, files, engine, self-test."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from edgekit.bundle import Bundle, open_bundle
from edgekit.console import Console
from edgekit.devices import facts as facts_source
from edgekit.devices import receiving
from edgekit.devices.copying import Blob, Copied, send
from edgekit.devices.fit import check_fit
from edgekit.devices.install import Runtime, ensure_runtime
from edgekit.devices.registry import Device
from edgekit.devices.session import Session
from edgekit.devices.wheel import runtime_wheel
from edgekit.errors import EdgekitError, UsageError
from edgekit.files import file_sha256
from edgekit.jetson import PENDING, SCRIPT
from edgekit.manifest import MANIFEST, Manifest, is_file_name

T = TypeVar("T")

# Reports that are added to a bundle later; a device does not need the newest.
_REPORTS: Final = frozenset({"parity.json", "bench.json", "report.html"})


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
    kept: int
    """Files that were there already."""
    engine: str
    """What the manifest on the device says of an engine; "" for bundles without."""
    selftest: str
    up_to_date: bool
    """Whether there was nothing to do."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Place:
    """Where things are on a device."""

    root: str
    name: str

    @property
    def bundle(self) -> str:
        """The bundle's folder."""
        return f"{self.root}/bundles/{self.name}"

    @property
    def staging(self) -> str:
        """Where its files arrive."""
        return f"{self.root}/staging/{self.name}"

    @property
    def state(self) -> str:
        """What was deployed, and that it passed its test."""
        return f"{self.root}/bundles/.{self.name}.json"

    @property
    def lock(self) -> str:
        """Held by whoever changes something, or measures."""
        return f"{self.root}/lock"

    @property
    def environment(self) -> dict[str, str]:
        """For what runs there: its cache lies in the same folder."""
        return {"EDGEKIT_CACHE": f"{self.root}/cache"}


def deploy(
    bundle: Bundle, session: Session, console: Console, *, wheels: Path | None = None
) -> Deployment:
    """Bring ``bundle`` to the device of an open ``session``."""
    start = time.monotonic()
    device, manifest = session.device, bundle.manifest
    place = place_of(session, bundle.path)
    facts = session.call(facts_source, "gather", place.root)
    check_fit(manifest, device, facts)
    session.lock(place.lock)
    blobs = _blobs(bundle)
    key = deployment_key(manifest)
    state = read_state(session, place)
    there = state.get("key") == key and bool(session.call(receiving, "whole", place.bundle))
    if not there:
        _check_room(blobs, device.name, facts)
    runtime = ensure_runtime(session, place.root, manifest.runtime, facts, wheels, console)
    copied = Copied(0, 0, len(blobs))
    if not there:
        copied = send(session, place.staging, place.bundle, blobs, console)
        console.info(
            f"copy: {copied.files} files, {copied.bytes / 1e6:.1f} MB; {copied.kept} were there"
        )
        _remote(session, place, runtime, "place", place.staging, blobs[0].sha256, place.bundle)
        session.call(receiving, "remove", place.staging)
    engine = _engine(session, place, runtime, manifest, console)
    tested = there and state.get("runtime") == runtime.stamp and state.get("selftest")
    if tested:
        console.info("up to date")
    else:
        tested = _remote(session, place, runtime, "selftest", place.bundle).strip()
        console.info(tested)
        state = {
            "key": key,
            "runtime": runtime.stamp,
            "python": runtime.python,
            "selftest": tested,
        }
        session.call(receiving, "write", place.state, json.dumps(state))
    return Deployment(
        device=device.name,
        bundle=place.bundle,
        runtime=runtime.folder,
        installed=runtime.installed,
        files=copied.files,
        bytes=copied.bytes,
        kept=copied.kept,
        engine=engine,
        selftest=tested,
        up_to_date=there and not runtime.installed,
        seconds=time.monotonic() - start,
    )


def deploy_all(
    path: Path, devices: Sequence[Device], console: Console, *, wheels: Path | None = None
) -> list[Deployment | EdgekitError]:
    """Deploy to several devices side by side; one that fails leaves the others."""
    bundle = open_bundle(path, any_arch=True)
    return on_all(
        devices, console, lambda session, said: deploy(bundle, session, said, wheels=wheels)
    )


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


def place_of(session: Session, path: Path) -> Place:
    """Where the bundle at ``path`` (here) lies on the device: under its own name."""
    name = path.resolve().name.removesuffix(".zip")
    if not is_file_name(name):
        raise UsageError(
            f"'{name}' cannot be a bundle's name on a device: use letters, digits, ._+-"
        )
    return Place(str(session.call(receiving, "home", session.device.folder)), name)


def deployment_key(manifest: Manifest) -> str:
    """A hash of what a device needs of a bundle: all but its reports and summaries."""
    files = {
        name: [entry.sha256, entry.size]
        for name, entry in manifest.files.items()
        if name not in _REPORTS
    }
    text = json.dumps([manifest.identity(), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_state(session: Session, place: Place) -> dict[str, Any]:
    """What the last deploy of this bundle wrote down; empty if there was none."""
    text = session.call(receiving, "read", place.state)
    try:
        state = json.loads(text or "{}")
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def require_deployed(session: Session, bundle: Bundle) -> tuple[Place, str]:
    """Where a deployed bundle is, and the interpreter that runs it; refuses one that is not."""
    place = place_of(session, bundle.path)
    name = session.device.name
    advice = f"run 'edgekit deploy {bundle.path} --device {name}'"
    state = read_state(session, place)
    if state.get("key") != deployment_key(bundle.manifest):
        held = "another bundle of that name" if state else "no such bundle"
        raise UsageError(f"{name} holds {held} ({place.name}): {advice}")
    if json.loads(state["runtime"])["edgekit"] != runtime_wheel().sha256:
        raise UsageError(f"{name} has the runtime of another edgekit: {advice}")
    return place, str(state["python"])


def _blobs(bundle: Bundle) -> list[Blob]:
    """The manifest first, then the files it lists."""
    manifest = bundle.folder / MANIFEST
    blobs = [Blob(MANIFEST, file_sha256(manifest), manifest.stat().st_size, manifest)]
    blobs += [
        Blob(name, entry.sha256, entry.size, bundle.folder / name)
        for name, entry in bundle.manifest.files.items()
    ]
    return blobs


def _check_room(blobs: list[Blob], name: str, facts: dict[str, Any]) -> None:
    wanted, free = sum(blob.size for blob in blobs), int(facts["free_bytes"])
    if free < wanted:
        raise EdgekitError(
            f"{name} has {free / 1e6:.1f} MB free, the bundle takes {wanted / 1e6:.1f}: make room, "
            "or choose another place with 'edgekit device add --folder'"
        )


def _engine(
    session: Session, place: Place, runtime: Runtime, manifest: Manifest, console: Console
) -> str:
    """Build the engine of a bundle that has none yet; what its manifest says there afterwards."""
    if manifest.sections.get("engine") != PENDING:
        return str(manifest.sections.get("engine", ""))
    there = json.loads(session.call(receiving, "read", f"{place.bundle}/{MANIFEST}") or "{}")
    if (said := there.get("sections", {}).get("engine")) != PENDING:
        return str(said)
    console.info("engine: building on the device, which takes minutes")
    command = 'PATH="$1/bin:$PATH" exec bash "$2"'
    script = f"{place.bundle}/{SCRIPT}"
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        console.info(f"engine: {line}")

    code, _ = session.run(
        ["sh", "-c", command, "sh", runtime.folder, script],
        on_line=take,
        environment=place.environment,
    )
    if code:
        raise remote_failure(session.device.name, code, lines)
    there = json.loads(session.call(receiving, "read", f"{place.bundle}/{MANIFEST}") or "{}")
    return str(there.get("sections", {}).get("engine", ""))


def _remote(session: Session, place: Place, runtime: Runtime, module: str, *words: str) -> str:
    """Run one of edgekit's own modules in the device's runtime; what it prints."""
    lines: list[str] = []
    code, output = session.run(
        [runtime.python, "-m", f"edgekit.devices.{module}", *words],
        on_line=lines.append,
        environment=place.environment,
    )
    if code:
        raise remote_failure(session.device.name, code, lines)
    return output


def failure(code: int, message: str) -> EdgekitError:
    """The kind of error whose exit code the device's command had."""
    for kind in EdgekitError.__subclasses__():
        if kind.__module__ == EdgekitError.__module__ and kind.exit_code == code:
            return kind(message)
    return EdgekitError(message)


def remote_failure(name: str, code: int, lines: Sequence[str]) -> EdgekitError:
    """What to say of a command that failed on a device, from its exit code and its output."""
    if code < 0:
        why = ": it may be out of memory" if -code == signal.SIGKILL else ""
        return EdgekitError(f"{name}: the process there was ended by signal {-code}{why}")
    return failure(code, f"{name}: {reason(lines)}")


def reason(lines: Sequence[str]) -> str:
    """The line that says why a command there failed."""
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it failed and said nothing"])[-1].removeprefix("error: ")
