"""``edgekit parity --on`` and ``build --on``: what is refused before any work, in one line."""

import socket
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgekit.core.packages import install_command
from tests import commands

PARITY = "parity", "no/such/bundle"


def refused(
    capsys: pytest.CaptureFixture[str], *options: str, command: tuple[str, ...] = PARITY
) -> tuple[int, str]:
    """The exit code and the only line of a command that does not start."""
    code, out, err = commands.run(capsys, *command, *options)
    assert out == ""
    (line,) = err.splitlines()
    return code, line


def test_without_ray_it_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.core.packages._installed", lambda name: name != "ray")
    code, line = refused(capsys, "--on", "ray")
    assert code == 4
    assert line.endswith(f"needs ray, which is not installed: run {install_command('ray')}")


@pytest.mark.parametrize("command", [PARITY, ("build",)])
@pytest.mark.parametrize("where", ["rai", "ray:", "spark", ""])
def test_what_is_not_ray(
    capsys: pytest.CaptureFixture[str], where: str, command: tuple[str, ...]
) -> None:
    code, line = refused(capsys, "--on", where, command=command)
    assert code == 2
    assert "write --on ray, or --on ray:ADDRESS" in line


@pytest.mark.parametrize("other", [["--device", "nano"], ["--plan"]])
def test_what_runs_in_one_place(capsys: pytest.CaptureFixture[str], other: list[str]) -> None:
    code, line = refused(capsys, "--on", "ray", *other)
    assert code == 2
    assert "--on" in line


@pytest.mark.skipif(find_spec("ray") is None, reason="the [ray] extra is not installed")
def test_an_address_where_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and not listening
        address = f"127.0.0.1:{free.getsockname()[1]}"
        code, line = refused(capsys, "--on", f"ray:{address}")
    assert code == 5
    assert f"no Ray cluster answers at {address}" in line


@pytest.mark.skipif(find_spec("ray") is None, reason="the [ray] extra is not installed")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not Ray"),
        (b"", "what answers there is not Ray"),
        (None, "nothing came in 0 s"),
    ],
)
def test_a_port_that_is_no_ray(
    said: bytes | None,
    why: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A web server, one that hangs up, and one that is silent."""
    monkeypatch.setattr("edgekit.parity.ray_cluster._CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(1 << 16)  # the greeting
                if said is None:
                    link.recv(1)  # until the other hangs up
                else:
                    link.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        code, line = refused(capsys, "--on", f"ray:{address}")
        thread.join()
    assert code == 5
    assert f"no Ray cluster answers at {address} ({why})" in line
    assert time.monotonic() - start < 30  # Ray itself would try for a minute


def test_only_two_modules_import_ray() -> None:
    parity = Path(__file__).parents[2] / "edgekit"
    names = {
        path.name for path in parity.rglob("*.py") if "import ray\n" in path.read_text("utf-8")
    }
    assert names == {"ray_cluster.py", "ray_executor.py"}
