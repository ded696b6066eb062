"""A device that is there and does nothing, or not what it was asked: the host gets away."""

import threading
import time
from pathlib import Path

import pytest

from edgekit.core.console import Console
from edgekit.core.errors import DeviceUnreachable, EdgekitError
from edgekit.core.files import file_sha256
from edgekit.devices.answers import InvalidAnswer
from edgekit.devices.fleet import on_all
from edgekit.devices.frames import Frame, Inbox
from edgekit.devices.link import Limits
from edgekit.devices.output import HeadAndTail, Lines
from edgekit.devices.remote import files as remote_files
from edgekit.devices.session import Session
from edgekit.devices.upload import Blob, send
from tests.hostile.devices import Network, network

__all__ = ["network"]
QUIET = Console(verbosity=-1)
PATIENT = 20.0  # seconds; far more than any limit below, far less than for ever


def test_it_stops_reading_in_the_middle_of_a_copy(network: Network, tmp_path: Path) -> None:
    """Its agent lives and says so; the pipe to it is full."""
    script = (
        'write(MAGIC); pinging()\nfor _ in range(2):\n    asked(); send({"op": "done", "value": '
        '{"noise": {"whole": False, "bytes": 0, "sha256": ""}}})\ntime.sleep(1000)\n'
    )
    source = tmp_path / "noise"
    source.write_bytes(bytes(8 << 20))
    blob = Blob("noise", file_sha256(source), 8 << 20, source)
    begin = time.monotonic()
    said = r"enemy has not taken any data \(call\) in 1 s, though it is reachable"
    with (
        pytest.raises(DeviceUnreachable, match=said) as caught,
        Session(network.enemy(script), Limits(taking=1, closing=1)) as session,
    ):
        send(session, "/tmp", "/tmp/staging", "", [blob], QUIET)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < PATIENT


@pytest.mark.parametrize(
    ("script", "limits", "said"),
    [
        ("write(MAGIC); pinging(); time.sleep(1000)", Limits(answer=1), r"not answered \(load\)"),
        ("write(MAGIC); time.sleep(1000)", Limits(silence=1), "silent for 1 s"),
        ("time.sleep(1000)", Limits(start=1), "not started edgekit's agent in 1 s"),
        (
            "while True:\n    write(b'Welcome! '); time.sleep(0.1)",
            Limits(start=1),
            "not started edgekit's agent in 1 s",
        ),
    ],
)
def test_it_says_nothing(script: str, limits: Limits, said: str, network: Network) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(DeviceUnreachable, match=said),
        Session(network.enemy(script), limits) as session,
    ):
        session.call(remote_files, "home", "~")
    assert time.monotonic() - begin < PATIENT


def test_a_command_that_does_not_end(network: Network) -> None:
    said = "good has not finished 'sh -c .*' in 2 s"
    script = "while :; do echo working; sleep 0.2; done"
    with (
        pytest.raises(DeviceUnreachable, match=said),
        Session(network.good(), Limits(command=2)) as session,
    ):
        session.run(["sh", "-c", script])


def test_one_that_does_not_finish_leaves_the_others(network: Network) -> None:
    slow = network.enemy("write(MAGIC); pinging(); time.sleep(1000)")

    def work(session: Session, console: Console) -> str:
        return session.call(remote_files, "home", "/x").text()

    late, good = on_all([slow, network.good()], QUIET, work, seconds=3)
    assert good == "/x"
    assert isinstance(late, DeviceUnreachable)
    assert str(late).startswith("enemy has not finished in 3 s")


def test_closing_ends_a_write_that_waits(network: Network) -> None:
    """Ctrl-C is another thread's: the one that copies is stuck in a full pipe."""
    device = network.enemy("write(MAGIC); pinging(); time.sleep(1000)")
    begin = time.monotonic()
    with Session(device, Limits(closing=1)) as session:
        stuck = threading.Thread(target=lambda: session.feed(bytes(8 << 20)), daemon=True)
        stuck.start()
        time.sleep(0.5)
        session.close()
        stuck.join(5)
        assert not stuck.is_alive()
    assert time.monotonic() - begin < PATIENT


@pytest.mark.parametrize(
    "script",
    [
        'while True: send({"op": "out", "stream": 1}, bytes(60000))',
        'while True: send({"op": "done", "value": 1})',
        'while True: send({"op": "ping"})',
        'while True: send({"op": "exit", "code": 0})',
        'while True: send({"op": "surprise"})',
        'send({"op": "out", "stream": 3}, b"x"); time.sleep(1000)',
        'send({"op": "exit", "code": 10 ** 30}); time.sleep(1000)',
        'write(b"\\xff" * 100); time.sleep(1000)',
        'write((1 << 27).to_bytes(4, "big") + bytes(4)); time.sleep(1000)',
        'write(bytes(4) + (1 << 27).to_bytes(4, "big")); time.sleep(1000)',
        'text = b"[" * 500_000\nwrite(len(text).to_bytes(4, "big") + bytes(4) + text)',
        'text = b"9" * 9_000\nwrite(len(text).to_bytes(4, "big") + bytes(4) + text)',
        'text = b"\\xff\\xfe"\nwrite(len(text).to_bytes(4, "big") + bytes(4) + text)',
        'text = b"[]"\nwrite(len(text).to_bytes(4, "big") + bytes(4) + text)',
    ],
)
def test_it_sends_what_was_not_asked_for(script: str, network: Network) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(InvalidAnswer, match="enemy sent something unrequested") as caught,
        Session(network.enemy(f"write(MAGIC)\ntime.sleep(0.3)\n{script}")) as session,
    ):
        call_until_it_fails(session)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < PATIENT


def call_until_it_fails(session: Session) -> None:
    while True:
        session.call(remote_files, "home", "~")


def fill(inbox: Inbox, frame: Frame) -> None:
    for _ in range(10_000):
        inbox.put(frame)


def test_frames_that_nobody_takes_are_counted() -> None:
    inbox = Inbox(most=1 << 20)
    inbox.expect("run")
    with pytest.raises(ValueError, match="more than fits in memory"):
        fill(inbox, Frame("out", bytes(1 << 16), stream=1))
    empty = Inbox(most=1 << 20)
    empty.expect("run")
    with pytest.raises(ValueError, match="more than fits in memory"):
        fill(empty, Frame("failed", error="again"))


def test_output_is_kept_as_head_and_tail(network: Network) -> None:
    kept = HeadAndTail(head=10, tail=6)
    for piece in (b"beginning ", b"x" * 100, b"middle", b"ending"):
        kept.feed(piece)
    assert kept.text() == "beginning \n... 106 bytes left out ...\nending"
    whole = HeadAndTail(head=10, tail=6)
    whole.feed(b"beginning")
    whole.feed(b" end")
    assert whole.text() == "beginning end"
    script = "echo first; head -c 40000000 /dev/zero; echo last"
    longest = 0

    def take(line: str) -> None:
        nonlocal longest
        longest = max(longest, len(line))

    with Session(network.good()) as session:
        code, output = session.run(["sh", "-c", script], on_line=take)
    assert code == 0
    assert output.startswith("first\n")
    assert output.endswith("last\n")
    assert len(output) < 20 << 20
    assert "bytes left out" in output
    assert longest <= 1 << 17


def test_a_line_without_end_is_cut() -> None:
    lines: list[str] = []
    cut = Lines(lines.append)
    for _ in range(100):
        cut.feed(b"x" * 1000)
    cut.feed(b"\nend")
    cut.finish()
    assert max(map(len, lines)) <= 1 << 15
    assert lines[-1] == "end"


def test_what_is_wrong_with_one_device_is_an_error_of_edgekit(network: Network) -> None:
    device = network.enemy('write(MAGIC); answer(home=["nonsense"])')
    said = r"enemy's answer \(home\) makes no sense: it must be text"
    with pytest.raises(EdgekitError, match=said), Session(device) as session:
        session.call(remote_files, "home", "~").text()
