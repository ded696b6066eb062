"""Where a deployed bundle is on its device, and whether it is there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import Manifest, is_file_name
from edgekit.bundle.store import Bundle
from edgekit.core.errors import UsageError
from edgekit.devices.answers import Answer, InvalidAnswer, parse_json
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import Session
from edgekit.devices.stamp import Stamp
from edgekit.devices.wheel import runtime_wheel

# Reports are added to a bundle later; a device does not need the latest.
_REPORTS: Final = frozenset(
    {"parity.json", "graph-parity.json", "examples.json", "bench.json", "report.html"}
)
_MOST_NAMES: Final = 1000


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
        """Where its files arrive first."""
        return f"{self.root}/staging/{self.name}"

    @property
    def state(self) -> str:
        """What was deployed, and that it passed its test."""
        return f"{self.root}/bundles/.{self.name}.json"

    @property
    def previous(self) -> str:
        """What a deploy replaced, kept until the next one."""
        return f"{self.root}/previous/{self.name}"

    @property
    def watched(self) -> str:
        """Where a monitor of this bundle keeps its state, unless told otherwise."""
        return f"{self.root}/watch/{self.name}.json"

    @property
    def signers(self) -> str:
        """Whom the device itself trusts, if it has that file."""
        return f"{self.root}/allowed_signers"

    @property
    def lock(self) -> str:
        """Held by whoever changes something or measures."""
        return f"{self.root}/lock"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for what runs there: its cache is in the same folder."""
        return {"EDGEKIT_CACHE": f"{self.root}/cache"}


def place_of(session: Session, path: Path) -> Place:
    """Where the local bundle at ``path`` goes on the device: under its own name."""
    return place_named(session, path.resolve().name.removesuffix(".zip"))


def entries(session: Session, folder: str) -> list[str]:
    """What is in this folder of edgekit's on the device, by name; all could be bundles' names."""
    root = session.call(remote_files, "home", session.device.folder).text()
    answer = session.call(remote_files, "entries", f"{root}/{folder}")
    names = [item.text() for item in answer.listed()]
    if len(names) > _MOST_NAMES or not all(map(is_file_name, names)):
        raise answer.wrong("a short list of bundles' names")
    return names


def place_named(session: Session, name: str) -> Place:
    """Where a bundle of this name is on the device."""
    if not is_file_name(name):
        raise UsageError(
            f"'{name}' cannot be a bundle's name on a device: use letters, digits, ._+-"
        )
    return Place(session.call(remote_files, "home", session.device.folder).text(), name)


def deployment_key(manifest: Manifest) -> str:
    """A hash of what a device needs of a bundle: all but its reports and summaries."""
    files = {
        name: [entry.sha256, entry.size]
        for name, entry in manifest.files.items()
        if name not in _REPORTS
    }
    text = json.dumps([manifest.identity(), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class DeployState:
    """What the last deploy of a bundle recorded on its device."""

    key: str
    """`deployment_key` of what was deployed."""
    runtime: str
    """The stamp of the environment that ran its test."""
    python: str
    """That environment's interpreter."""
    selftest: str
    """The test's result line."""

    def to_json(self) -> str:
        """Text for the device."""
        return json.dumps(dataclasses.asdict(self))


def read_state(session: Session, path: str) -> DeployState | None:
    """What a deploy recorded in the file ``path``; None if there is nothing we can read."""
    answer = session.call(remote_files, "read", path)
    text = answer.text_or_none()
    if text is None:
        return None
    try:
        return Answer(parse_json(text), answer.name).fill(DeployState)
    except (ValueError, InvalidAnswer):  # of another release, or damaged: deploy again
        return None


def require_deployed(session: Session, bundle: Bundle) -> tuple[Place, str]:
    """Where a bundle is deployed, and the interpreter that runs it; an error if it is not there."""
    place = place_of(session, bundle.path)
    name = session.device.name
    command = shlex.join(["edgekit", "deploy", str(bundle.path), "--device", name])
    advice = f"run '{command}'"
    state = read_state(session, place.state)
    if state is None or state.key != deployment_key(bundle.manifest):
        content = "no such bundle" if state is None else "another bundle of that name"
        raise UsageError(f"{name} holds {content} ({place.name}): {advice}")
    stamp = Stamp.parse(state.runtime)
    if stamp is None or stamp.edgekit != runtime_wheel().sha256:
        raise UsageError(f"{name} has the runtime of another edgekit version: {advice}")
    return place, state.python
