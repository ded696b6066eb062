"""What goes wrong on the way to a device, and on its disk."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.bundle import open_bundle
from edgekit.console import Console
from edgekit.devices import agent
from edgekit.devices.copying import Blob, send
from edgekit.devices.registry import Device, add_device
from edgekit.devices.session import Session
from edgekit.errors import DeviceUnreachable, EdgekitError
from edgekit.files import file_sha256
from tests import bundles
from tests.devices.conftest import Run, Server, using, wait_until
from tests.devices.test_deploy import labeled, there


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


def test_a_copy_that_was_cut_goes_on(server: Server, device: Device, large: Path, run: Run) -> None:
    with cutting(server, lambda: arrived(device) > 10 << 20):
        code, _, err = run("deploy", large, "--device", "loop")
    assert code == 5
    error = err.splitlines()[-1]
    assert error.startswith("error: the link to loop broke")
    assert "run the same command again" in error
    assert wait_until(lambda: not server.connections(), 10)
    there_already = arrived(device)
    assert 10 << 20 < there_already < 48 << 20
    assert not there(device, large).exists()
    visible = [path.name for path in (Path(device.folder) / "bundles").glob("[!.]*")]
    assert large.name not in visible
    code, out, err = run("deploy", large, "--device", "loop", "--json")
    assert code == 0, err
    assert "copy: noise.bin goes on at" in err
    (entry,) = json.loads(out)["devices"]
    total = sum(file.size for file in open_bundle(large).manifest.files.values())
    total += (large / "manifest.json").stat().st_size
    assert entry["bytes"] <= total - there_already + (1 << 20)
    assert file_sha256(there(device, large) / "noise.bin") == file_sha256(large / "noise.bin")
    open_bundle(there(device, large))


def test_a_part_with_a_wrong_byte_is_copied_anew(
    server: Server, device: Device, large: Path, run: Run
) -> None:
    with cutting(server, lambda: arrived(device) > 10 << 20):
        assert run("deploy", large, "--device", "loop")[0] == 5
    assert wait_until(lambda: not server.connections(), 10)
    (part,) = Path(device.folder).glob(f"staging/{large.name}/*.part")
    with part.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"wrong")
    code, _, err = run("deploy", large, "--device", "loop")
    assert code == 0, err
    assert "goes on at" not in err
    open_bundle(there(device, large))


def test_parity_goes_on_after_a_cut(
    server: Server, device: Device, bundle: Path, tmp_path: Path, run: Run
) -> None:
    assert run("deploy", bundle, "--device", "loop")[0] == 0
    count = 40
    words = ("--reference", bundles.made().onnx, "--allow-different-reference", "--full")
    words = (*words, "--data", labeled(tmp_path, count), "--corruptions", "fog,motion_blur")
    command = ("parity", bundle, "--device", "loop", *words, "--tolerance", "90", "--json")
    with cutting(server, lambda: len(list((tmp_path / "cache/parity").rglob("*.npz"))) > 10):
        code, out, err = run(*command)
    assert code == 5, err
    error = err.splitlines()[-1]
    assert error.startswith("error: the link to loop broke")
    assert json.loads(out)["exit_code"] == 5
    assert "Traceback" not in err
    assert wait_until(lambda: not using(Path(device.folder)), 10)
    assert not (bundle / "parity.json").exists()
    code, out, err = run(*command)
    assert code == 0, err
    document = json.loads(out)
    assert document["inferences_cached"] > 0
    assert document["inferences"] + document["inferences_cached"] == 2 * count * 11
    assert json.loads((bundle / "parity.json").read_text())["candidate"].endswith("on loop")


def test_a_silent_device(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is there, the link is up, and nothing comes: its agent was stopped."""
    with Session(server.device(tmp_path)) as session:
        code, output = session.run(["sh", "-c", "echo $PPID"])
        assert code == 0
        os.kill(int(output), signal.SIGSTOP)
        monkeypatch.setattr(agent, "SILENCE", 2.0)
        try:
            with pytest.raises(DeviceUnreachable, match="loop has been silent for 2 s"):
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
    assert "Connection refused: is it on, and is this its address and port?" in line


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
    with Session(server.device(small_disk)) as session:
        with pytest.raises(EdgekitError, match="no space left in .* for noise: 12.6 MB are to be"):
            send(session, staging, "", [blob], quiet)
    assert not (small_disk / "staging" / blob.sha256).exists()
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    with Session(server.device(small_disk)) as session:
        copied = send(session, staging, "", [blob], quiet)
    assert 0 < copied.bytes < 6 << 20  # what had arrived is used
    assert file_sha256(small_disk / "staging" / blob.sha256) == blob.sha256
