"""A real sshd on loopback with keys of its own, and devices that are folders behind it."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.bundle.store import update_bundle
from edgekit.devices.registry import Device, add_device
from tests import bundles
from tests.hostile.devices import Run, run

__all__ = ["Run", "run"]


@dataclass(frozen=True)
class Server:
    """An sshd that runs, and how ssh gets to it."""

    port: int
    folder: Path
    process: int

    @property
    def options(self) -> tuple[str, ...]:
        return ("-F", str(self.folder / "config"))

    def device(self, folder: Path, name: str = "loop") -> Device:
        host = f"{getpass.getuser()}@127.0.0.1"
        return Device(name, host, self.port, "", sys.executable, str(folder), self.options)

    def connections(self) -> list[int]:
        """The processes that serve a client each."""
        return [pid for pid, parent in parents().items() if parent == self.process]

    def cut(self) -> None:
        """Break all links, as a network does: nobody says goodbye."""
        for pid in self.connections():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def parents() -> dict[int, int]:
    """Living processes and their parents."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def using(folder: Path) -> list[int]:
    """Processes that work on the device whose folder this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mark = f"EDGEKIT_CACHE={folder}/cache".encode()
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 30) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@contextlib.contextmanager
def cutting(server: Server, when: Callable[[], object]) -> Iterator[None]:
    """Cut all links as soon as ``when`` holds."""

    def wait() -> None:
        if wait_until(when, 60):
            server.cut()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def arrived(device: Device) -> int:
    """Bytes of parts in the staging folders."""
    total = 0
    for part in Path(device.folder).glob("staging/*/*.part"):
        with contextlib.suppress(FileNotFoundError):
            total += part.stat().st_size
    return total


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@contextlib.contextmanager
def serving(more: str = "") -> Iterator[Server]:
    """An sshd of our own; ``more`` goes into its configuration."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's server is not installed: apt-get install openssh-server")
    folder = Path(tempfile.mkdtemp(prefix="edgekit-sshd-"))
    for name in ("host", "other", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nMaxStartups 50\n{more}\n"
    )
    for name, key in (("known", "host"), ("wrong", "other")):
        text = (folder / f"{key}.pub").read_text()
        (folder / name).write_text(f"[127.0.0.1]:{port} {text}")
    for name, known in (("config", "known"), ("wrong-config", "wrong")):
        (folder / name).write_text(
            f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/{known}\n  GlobalKnownHostsFile /dev/null\n"
        )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log
        )
    try:
        made = Server(port, folder, process.pid)
        command = ["ssh", *made.options, "-o", "BatchMode=yes", "-p", str(port)]
        command += [f"{getpass.getuser()}@127.0.0.1", "true"]

        def logs_in() -> bool:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        if not wait_until(logs_in, 20):
            pytest.skip(f"sshd lets {getpass.getuser()} not in: {(folder / 'log').read_text()}")
        yield made
    finally:
        made.cut()
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def wheels() -> Iterator[Path]:
    """What the runtime is installed from; fetched once, from pip's cache as a rule."""
    folder = Path(tempfile.mkdtemp(prefix="edgekit-wheels-"))
    pins = [f"openvino=={bundles_runtime()}", "numpy", "pillow", "click", "rich"]
    if sys.version_info < (3, 11):
        pins.append("tomli")
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:"]
    subprocess.run([*command, "-d", str(folder), *pins], check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder)


def bundles_runtime() -> str:
    from edgekit.runtime.openvino import runtime_version

    return runtime_version()


@pytest.fixture(scope="session")
def home(server: Server, wheels: Path) -> Iterator[Path]:
    """A device's folder with the OpenVINO runtime installed, by a deploy of the tiny bundle."""
    folder = Path(tempfile.mkdtemp(prefix="edgekit-device-"))
    from edgekit.core.console import Console
    from edgekit.devices.deploy import Deployment, deploy_all

    (result,) = deploy_all(
        bundles.bundle("cpu"), [server.device(folder)], Console(verbosity=-1), wheels=wheels
    )
    assert isinstance(result, Deployment), result
    assert result.installed
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or changes the user's devices and cache."""
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def device(server: Server, home: Path) -> Device:
    """A registered device with a runtime."""
    found = server.device(home)
    add_device(found)
    return found


@pytest.fixture
def bundle(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A bundle of the test's own, under a name that no other test deploys."""
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    return Path(shutil.copytree(bundles.bundle("cpu"), tmp_path / name))


@pytest.fixture
def large(bundle: Path) -> Path:
    """The bundle with 48 MB of noise in it."""
    update_bundle(bundle, reports={"noise.bin": os.urandom(48 << 20)})
    return bundle
