"""Connects to a Ray cluster for a sweep, or starts one on this machine and ends it again."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgekit.core.console import Console
from edgekit.core.errors import DeviceUnreachable, UsageError, one_line
from edgekit.core.host import usable_threads
from edgekit.core.packages import require
from edgekit.parity.executors import LOCAL, Executor

_STORE_BYTES: Final = 256 << 20  # of a cluster of our own: only descriptions and outputs travel
_LONGEST_PARENT: Final = 20  # sockets are 86 characters below it, and Linux allows 107
_CONNECT_SECONDS: Final = 5.0
# Ray speaks gRPC, which is HTTP/2: each side begins with its settings, before anybody asks.
_HTTP2_SETTINGS: Final = b"\x04"  # the kind of that frame, after three bytes of its length
_HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _HTTP2_SETTINGS + bytes(5)
_AUTHENTICATION: Final = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def executor_on(where: str | None, console: Console) -> Iterator[Executor]:
    """The executor that ``--on`` names: None is this process, ``ray`` or ``ray:ADDRESS`` Ray."""
    if where is None:
        yield LOCAL
        return
    connect = _connection(where)
    from edgekit.parity.ray_executor import RayExecutor

    with contextlib.closing(RayExecutor(console, connect)) as executor:
        yield executor


@contextmanager
def ray_on(where: str) -> Iterator[None]:
    """Ray in this process, as ``--on`` names it: that of this machine alone ends afterwards."""
    with _connection(where)():
        yield


def _connection(where: str) -> Callable[[], AbstractContextManager[None]]:
    """How to connect; refuses at once what is not Ray, or does not answer."""
    name, colon, address = where.partition(":")
    if name != "ray" or (colon and not address):
        raise UsageError(f"--on {where}: write --on ray, or --on ray:ADDRESS such as ray:head:6379")
    require(("ray",), "--on ray", "ray")
    if not address:
        return _started
    _check_answers(address)
    return partial(_session, f"no Ray cluster answers at {address}", address=address)


def _check_answers(address: str) -> None:
    """Say at once if nobody is there, or somebody else: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return
    reason = ""
    try:
        place = host.strip("[]"), int(port)
        with socket.create_connection(place, _CONNECT_SECONDS) as link, link.makefile("rb") as said:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                link.sendall(_HTTP2_GREETING)
                if said.read(4)[3:] != _HTTP2_SETTINGS:
                    reason = "what answers there is not Ray"
    except TimeoutError:
        reason = f"nothing came in {_CONNECT_SECONDS:.0f} s"
    except (OSError, OverflowError, ValueError) as error:
        reason = one_line(error)
    if reason:
        raise DeviceUnreachable(
            f"no Ray cluster answers at {address} ({reason}): 'ray status' on its head node shows "
            "whether it runs"
        )


@contextmanager
def _started() -> Iterator[None]:
    """A cluster of this machine alone, in a temporary folder; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="edgekit-ray-", dir=_short_folder()))
    try:
        with _own_token(folder):
            read_authentication_again()
            own = _session(
                "Ray does not start",
                address="local",
                num_cpus=usable_threads(),
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _system_config={"worker_niceness": 0},  # not behind everything else that runs
                _temp_dir=str(folder),
            )
            with own:
                yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _session(failure: str, **options: Any) -> Iterator[None]:
    """Ray in this process; however far it came, it is gone at the end."""
    import ray
    from ray._private import worker as internals

    # Otherwise it prints on stdout what became of its workers, which is the executor's to say.
    internals._worker_logs_enabled = False
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise DeviceUnreachable(f"{failure}: {one_line(error)}") from error
        except SystemExit as stop:  # how Ray's handler of SIGTERM ends a process that connects
            raise KeyboardInterrupt from stop
        finally:
            if main:  # Ray sets a handler, which would end the process without a word
                signal.signal(signal.SIGTERM, before)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_token(folder: Path) -> Iterator[None]:
    """Keep the secret that Ray makes for a cluster, and by default leaves in HOME, in ``folder``.

    Only who has it gets in. What the user has set stays.
    """
    before = {name: os.environ.get(name) for name in _AUTHENTICATION}
    if any(before.values()):
        yield
        return
    file = folder / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)
    try:
        yield
    finally:
        for name in before:
            os.environ.pop(name, None)


def read_authentication_again() -> None:
    """Let Ray read its environment: it keeps what it read at its import, or for another cluster."""
    from ray import _raylet

    internals: Any = _raylet  # compiled, without types
    internals.Config.initialize("")
    internals.AuthenticationTokenLoader.instance().reset_cache()


def _short_folder() -> str:
    """Where to put temporary files with sockets among them."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _LONGEST_PARENT else "/tmp"
