"""The runtime on a device: one virtual environment per release of the inference runtime.

It holds edgekit's Python files, their requirements and the bundle's runtime, and no build tools.
A stamp records what was installed, so the next deploy can skip it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.bundle.manifest import RuntimeNeed
from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, ToolchainMissing, UsageError
from edgekit.core.files import file_sha256
from edgekit.devices.facts import DeviceFacts
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import Session
from edgekit.devices.ssh import remote_path
from edgekit.devices.stamp import Stamp
from edgekit.devices.upload import Blob, send
from edgekit.devices.wheel import runtime_wheel
from edgekit.targets.tensorrt_releases import version

_STAMP: Final = "edgekit-runtime.json"
_OLDEST: Final = (3, 10)
_LAST_LINES: Final = 200  # of a command's output, for its error message
# Bytes of an installed runtime with its requirements, rounded up (measured in docs/devices.md).
_BYTES: Final = {"openvino": 350 << 20, "onnxruntime": 250 << 20, "tensorrt": 150 << 20}


@dataclass(frozen=True)
class Runtime:
    """An environment on a device."""

    folder: str
    stamp: str
    """Its content, as text that changes whenever the content does."""
    installed: bool
    """Whether this call created or changed it."""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return f"{self.folder}/bin/python"


def runtime_folder(root: str, need: RuntimeNeed) -> str:
    """The folder of the environment for a bundle's runtime; ``root`` is edgekit's folder there."""
    release = "" if need.name == "tensorrt" else f"-{need.version}"
    return f"{root}/runtimes/{need.name}{release}"


def requirement(need: RuntimeNeed) -> str:
    """What pip has to install; "" where the system provides the runtime."""
    if need.name == "tensorrt":
        return ""
    return need.requirement


def check_python(name: str, facts: DeviceFacts) -> None:
    """Refuse a device whose Python cannot run the runtime."""
    if version(facts.python)[:2] < _OLDEST:
        raise ToolchainMissing(
            f"{name} has Python {facts.python}, edgekit needs 3.10: install one there and name "
            "it with 'edgekit device add --python'"
        )


def ensure_runtime(
    session: Session,
    root: str,
    need: RuntimeNeed,
    facts: DeviceFacts,
    wheels: Path | None,
    console: Console,
) -> Runtime:
    """The environment for ``need``, created or updated where necessary."""
    name = session.device.name
    check_python(name, facts)
    folder = runtime_folder(root, need)
    wheel = runtime_wheel()
    offline = _wheels(wheels)
    required = Stamp(
        edgekit=wheel.sha256,
        requirement=requirement(need),
        python=facts.python,
        wheels=tuple(sorted(blob.sha256 for blob in offline)),
    )
    stamp = required.to_json()
    text = session.call(remote_files, "read", f"{folder}/{_STAMP}").text_or_none()
    installed_stamp = None if text is None else Stamp.parse(text)
    if installed_stamp is not None and installed_stamp.serves(required):
        console.detail(f"runtime: {folder} is up to date")
        return Runtime(folder, stamp, installed=False)
    if text is None:
        _check_room(session, root, need)
        if not facts.venv:
            raise ToolchainMissing(
                f"{name}: its Python has no venv: run 'sudo apt-get install python3-venv' there"
            )
    console.info(f"runtime: installing into {folder}")
    session.call(remote_files, "remove", root, f"{folder}/{_STAMP}")
    staged = f"{root}/wheels"
    blobs = [Blob(wheel.name, wheel.sha256, len(wheel.data), wheel.data), *offline]
    send(session, root, staged, "", blobs, console)
    links = f"{root}/wheels.named"
    session.call(remote_files, "name_all", root, staged, links, {b.name: b.sha256 for b in blobs})
    _create_environment(session, root, folder, need, console)
    pip = [f"{folder}/bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--no-input", "--progress-bar", "off", "--retries", "1", "--timeout", "20"]
    if wheels is not None:
        pip += ["--no-index", "--find-links", links]
    run_pip(session, [*pip, f"{links}/{wheel.name}", *filter(None, [requirement(need)])], console)
    session.call(remote_files, "remove", root, links)
    session.call(remote_files, "remove", root, staged)
    session.call(remote_files, "write", root, f"{folder}/{_STAMP}", stamp)
    return Runtime(folder, stamp, installed=True)


def _create_environment(
    session: Session, root: str, folder: str, need: RuntimeNeed, console: Console
) -> None:
    """Create the environment, replacing one whose interpreter is broken."""
    try:
        status, _ = session.run([f"{folder}/bin/python", "-m", "pip", "--version"])
    except EdgekitError:
        status = 1
    if status == 0:
        return
    session.call(remote_files, "remove", root, folder)
    system = ["--system-site-packages"] if need.name == "tensorrt" else []
    python = remote_path(session.device.python)
    code, reason = _logged(
        session, ["sh", "-c", f'exec {python} -m venv "$@"', "sh", *system, folder], console
    )
    if code:
        raise EdgekitError(f"{session.device.name}: cannot create {folder}: {reason}")


def run_pip(session: Session, command: list[str], console: Console) -> None:
    """Run pip there; a failure gives its reason in one line."""
    code, reason = _logged(session, command, console)
    if code == 0:
        return
    name = session.device.name
    if "No space left" in reason:
        raise EdgekitError(
            f"{name}: no space left to install the runtime: make room, then run again"
        )
    raise EdgekitError(
        f"{name}: pip cannot install the runtime ({reason}): if the device has no internet, get "
        "the wheels with 'pip download' and give their folder with --wheels"
    )


def _logged(session: Session, command: list[str], console: Console) -> tuple[int, str]:
    """Run a command, logging its output; its exit code and the line that says why it failed."""
    lines: deque[str] = deque(maxlen=_LAST_LINES)

    def take(line: str) -> None:
        lines.append(line)
        console.detail(line)

    code, _ = session.run(command, on_line=take)
    errors = [line for line in lines if line.startswith("ERROR")]
    return code, (errors or list(lines) or ["no message"])[-1].removeprefix("ERROR: ")


def _wheels(folder: Path | None) -> list[Blob]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: --wheels takes a folder of .whl files")
    blobs = [
        Blob(p.name, file_sha256(p), p.stat().st_size, p) for p in sorted(folder.glob("*.whl"))
    ]
    if not blobs:
        raise UsageError(f"{folder} holds no .whl files: fill it with 'pip download'")
    return blobs


def _check_room(session: Session, root: str, need: RuntimeNeed) -> None:
    free = session.call(remote_files, "free_bytes", root).number()
    needed = _BYTES[need.name]
    if free < needed:
        raise EdgekitError(
            f"{session.device.name}: {root} has {free >> 20} MiB free, the runtime takes up to "
            f"{needed >> 20}: make room, or choose another place with 'edgekit device add --folder'"
        )
