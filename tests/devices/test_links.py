"""What goes wrong on the way to a device, and on its disk."""

import dataclasses
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import DeviceUnreachable, EdgekitError
from edgekit.core.files import file_sha256
from edgekit.devices.link import Limits
from edgekit.devices.registry import Device, add_device
from edgekit.devices.session import Session
from edgekit.devices.upload import Blob, send
from tests.devices.conftest import Run, Server


def test_a_silent_device(server: Server, tmp_path: Path) -> None:
    """The machine is there, the link is up, and nothing comes: its agent was stopped."""
    limits = Limits(silence=12.0)  # more than the agent's beat
    with Session(server.device(tmp_path), limits) as session:
        code, output = session.run(["sh", "-c", "echo $PPID"])
        assert code == 0
        os.kill(int(output), signal.SIGSTOP)
        try:
            with pytest.raises(DeviceUnreachable, match="loop has been silent for 12 s"):
                session.run(["true"])
        finally:
            os.kill(int(output), signal.SIGCONT)


def test_login_scripts_that_talk_are_no_frames(server: Server, tmp_path: Path) -> None:
    talking = tmp_path / "python"
    talking.write_text('#!/bin/sh\necho "Welcome! You have mail."\nexec python3 "$@"\n')
    talking.chmod(0o755)
    device = dataclasses.replace(server.device(tmp_path), python=str(talking))
    with Session(device) as session:
        assert session.run(["echo", "here"]) == (0, "here\n")


def unreachable(run: Run, device: Device, bundle: Path) -> str:
    """The one line that every command ends with."""
    add_device(device)
    lines = []
    for words in (("deploy", bundle, "--device"), ("device", "check")):
        code, _, err = run(*words, "loop")
        assert code == 5
        assert "Traceback" not in err
        lines.append(err.splitlines()[-1])
    assert lines[0] == lines[1]
    return lines[0]


def test_a_closed_port(server: Server, bundle: Path, tmp_path: Path, run: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    device = dataclasses.replace(server.device(tmp_path / "dev"), port=port)
    line = unreachable(run, device, bundle)
    assert line.startswith("error: cannot reach loop (")
    assert "Connection refused: check that it is on, and its address and port" in line


def test_a_wrong_host_key(server: Server, bundle: Path, tmp_path: Path, run: Run) -> None:
    options = ("-F", str(server.folder / "wrong-config"))
    device = dataclasses.replace(server.device(tmp_path / "dev"), options=options)
    line = unreachable(run, device, bundle)
    assert "its host key is not the one in known_hosts" in line
    assert "compare the fingerprint" in line
    assert not (tmp_path / "dev").exists()


def test_a_key_that_is_not_let_in(server: Server, bundle: Path, tmp_path: Path, run: Run) -> None:
    options = (*server.options, f"-oIdentityFile={server.folder}/other", "-oIdentityAgent=none")
    config = (server.folder / "config").read_text().replace("user", "other", 1)
    (tmp_path / "config").write_text(config)
    options = ("-F", str(tmp_path / "config"), "-oIdentityAgent=none")
    device = dataclasses.replace(server.device(tmp_path / "dev"), options=options)
    line = unreachable(run, device, bundle)
    assert "Permission denied" in line
    assert "ssh-copy-id" in line


def test_a_host_without_python(server: Server, bundle: Path, tmp_path: Path, run: Run) -> None:
    add_device(dataclasses.replace(server.device(tmp_path / "dev"), python="python3.99"))
    code, _, err = run("deploy", bundle, "--device", "loop")
    assert code == 4
    assert "has no python3.99: run 'sudo apt-get install python3 python3-venv'" in err
    assert not (tmp_path / "dev").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.getuid() != 0:
        pytest.skip("mounting a small disk takes root")
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this container mounts no disks: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_bundle_that_does_not_fit(
    server: Server, small_disk: Path, large: Path, run: Run
) -> None:
    add_device(server.device(small_disk / "dev"))
    code, _, err = run("deploy", large, "--device", "loop")
    assert code == 1
    assert "MB free, the bundle takes 50." in err.splitlines()[-1]
    assert not (small_disk / "dev/bundles").exists()


def test_a_disk_that_fills_up(server: Server, small_disk: Path, tmp_path: Path) -> None:
    """Not foreseeable: others write to it, too."""
    source = tmp_path / "noise"
    source.write_bytes(os.urandom(12 << 20))
    blob = Blob("noise", file_sha256(source), 12 << 20, source)
    staging = str(small_disk / "staging")
    quiet = Console(verbosity=-1)
    said = r"no space left in .* for noise: the copy needs 12\.6 MB"
    with pytest.raises(EdgekitError, match=said), Session(server.device(small_disk)) as session:
        send(session, str(small_disk), staging, "", [blob], quiet)
    assert not (small_disk / "staging" / blob.sha256).exists()
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    with Session(server.device(small_disk)) as session:
        copied = send(session, str(small_disk), staging, "", [blob], quiet)
    assert 0 < copied.bytes < 6 << 20  # what had arrived is used
    assert file_sha256(small_disk / "staging" / blob.sha256) == blob.sha256
