"""What Prometheus reads of a monitor: the text, the file, and the server that nobody can block."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import EdgekitError, UsageError
from edgekit.field import metrics_server
from edgekit.field.metrics import destination, exposition, keep_metrics
from edgekit.field.metrics_server import MetricsServer
from edgekit.field.monitor import Monitor
from tests.field.exposition import read_exposition
from tests.field.lab import reference
from tests.field.test_monitor import day

QUIET = Console(verbosity=-1)


def test_the_text_says_what_the_monitor_does() -> None:
    monitor = Monitor(reference())
    name = 'the "pole"\\ of\nAachen'
    own = (("monitor", name),)
    monitor.update(day()[:400])
    before = read_exposition(exposition(monitor.status(), name))
    assert before["edgekit_images_total", own] == 400
    assert before["edgekit_changed", own] == 0
    assert ("edgekit_estimated_error", own) not in before
    monitor.update(day()[400:])
    status = monitor.status()
    after = read_exposition(exposition(status, name))
    assert after["edgekit_changed", own] == 1
    assert after["edgekit_alarms_total", own] == 1
    assert status.error is not None
    assert after["edgekit_estimated_error_high", own] == status.error.high
    assert abs(after["edgekit_last_image_timestamp_seconds", own] - time.time()) < 60
    assert after["edgekit_resembles", (*own, ("corruption", "fog"), ("severity", "3"))] > 0.9


def test_a_counter_keeps_all_its_digits() -> None:
    monitor = Monitor(reference())
    monitor._state.images = 123_456_789
    assert "edgekit_images_total" in exposition(monitor.status(), "a")
    assert " 123456789\n" in exposition(monitor.status(), "a")


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("pole:80", ("pole", 80)),
        ("./9464.prom", Path("9464.prom")),
        ("host:80.prom", Path("host:80.prom")),
    ],
)
def test_a_port_or_a_file(where: str, place: object) -> None:
    assert destination(where) == place


@pytest.mark.parametrize(
    "where", ["", ":9464", "65536", "-1", "edgekit.txt", "a/b:80", "host:", "٣"]
)
def test_neither_a_port_nor_a_file(where: str) -> None:
    with pytest.raises(UsageError, match=r"HOST:PORT, or a file whose name ends in \.prom"):
        destination(where)


def test_a_file_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "node" / "pole.prom"
    texts = iter(["one\n", "two\n", "three\n", "four\n", "five\n"])
    with keep_metrics(str(place), lambda: next(texts), QUIET) as publish:
        assert place.read_text() == "one\n"
        inode = place.stat().st_ino
        publish()
        assert place.read_text() == "two\n"
        assert place.stat().st_ino != inode  # another file in its place, never half of this one
        assert [path.name for path in place.parent.iterdir()] == ["pole.prom"]
        place.unlink()
        place.mkdir()
        (place / "in the way").touch()
        publish()
        publish()
        assert capsys.readouterr().err.count("warning: cannot write") == 1
        (place / "in the way").unlink()
        place.rmdir()
    assert place.read_text() == "five\n"
    with pytest.raises(EdgekitError), keep_metrics("/proc/no.prom", lambda: "", QUIET):
        pass


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    monitor = Monitor(reference())
    monitor.update(day()[:50])
    with MetricsServer("127.0.0.1", 0, lambda: exposition(monitor.status(), "a")) as made:
        yield made


def connect(server: MetricsServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").removesuffix("/metrics").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def ask(server: MetricsServer, request: bytes) -> bytes:
    """All that comes back, until the server hangs up."""
    with connect(server) as mine:
        mine.sendall(request)
        answer = b""
        while data := mine.recv(1 << 16):
            answer += data
        return answer


def test_it_is_scraped(server: MetricsServer) -> None:
    with urllib.request.urlopen(server.url, timeout=10) as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = response.read().decode()
    assert read_exposition(text)["edgekit_images_total", (("monitor", "a"),)] == 50
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(server.url + "/more", timeout=10)
    head = ask(server, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
    split = ask(server, b"GET /metrics?x=1 HTTP/1.0\r\nHost: a\r\n\r\n")
    assert split.endswith(text.encode())
    assert ask(server, b"POST /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert ask(server, b"\x16\x03\x01\x02\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(server, b"GET /" + b"a" * 8192).startswith(b"HTTP/1.1 431 ")


def test_whoever_is_slow_takes_nothing_from_others(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "_SECONDS", 1.5)
    silent = [connect(server) for _ in range(40)]
    silent[-1].sendall(b"GET /metrics HTTP/1.1\r\n")  # and never the empty line
    begin = time.monotonic()
    assert urllib.request.urlopen(server.url, timeout=10).read()
    assert time.monotonic() - begin < 1.5
    assert len(server._connections) <= 16
    for one in silent:
        assert one.recv(1) == b""  # each is shown out
        one.close()
    assert time.monotonic() - begin < 6


def test_scrapes_do_not_keep_the_monitor_busy() -> None:
    made = []

    def text() -> str:
        made.append(1)
        return "edgekit_images_total 1\n"

    with MetricsServer("127.0.0.1", 0, text) as server:
        for _ in range(50):
            assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n")
        url = server.url
    assert len(made) <= 5
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


def test_a_port_that_is_taken(server: MetricsServer) -> None:
    port = server.url.split(":")[2].removesuffix("/metrics")
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1, port {port}: Address already in use"):
        MetricsServer("127.0.0.1", int(port), str)
    with pytest.raises(UsageError, match="cannot serve metrics"):
        MetricsServer("no.such.host.invalid", 9464, str)
