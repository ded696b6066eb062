"""Commands in processes that are forked from one which has imported everything already.

A campaign stops hundreds of commands; importing torch and NNCF for each would take longer than all
of them. The parent imports, and computes nothing. Each child is a process of its own in a session
of its own, with `file_faults.cpp` between it and the disk.

Run as a program, this file is that parent: it reads requests, a JSON document a line.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

ROOT = Path(__file__).parents[3]
MODES: Final = {"none": 0, "count": 1, "kill": 2, "full": 3, "full for names": 4, "record": 5}
Mode = Literal["none", "count", "kill", "full", "full for names", "record"]
TINY = "tiny"
"""A backbone of three convolutions that only the children know."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a child: ``mode`` at the ``at``-th operation below ``folder``."""

    mode: Mode = "none"
    at: int = 0
    folder: Path = Path("/nowhere")
    log: Path | None = None


@dataclass(frozen=True)
class Child:
    """A command at work."""

    pid: int
    folder: Path  # of its streams


@dataclass(frozen=True)
class Finished:
    """How a command ended; ``code`` is negative where a signal ended it."""

    code: int
    stdout: str
    stderr: str
    operations: int  # counted, if it came to its end
    seconds: float


@dataclass
class Forker:
    """The parent process, and what it is asked."""

    folder: Path
    """For the library and the children's streams; outside of every folder with faults."""
    _process: subprocess.Popen[str] = field(init=False)
    _started: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.campaign.file_faults"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(self.folder),
        )
        self._ask({"op": "ready"})

    def start(
        self,
        words: Sequence[str],
        cwd: Path,
        *,
        fault: Fault | None = None,
        env: Mapping[str, str] | None = None,
        program: str = "edgekit.cli.main:main",
    ) -> Child:
        """Start ``program``, a function that takes a list of words and gives an exit code."""
        fault = fault or Fault()
        streams = Path(tempfile.mkdtemp(dir=self.folder))
        answer = self._ask(
            {
                "op": "start",
                "words": list(words),
                "cwd": str(cwd),
                "env": dict(env or {}),
                "streams": str(streams),
                "program": program,
                "fault": [MODES[fault.mode], fault.at, str(fault.folder), str(fault.log or "")],
            }
        )
        child = Child(answer["pid"], streams)
        self._started[child.pid] = time.monotonic()
        return child

    def wait(self, child: Child, seconds: float = 120) -> Finished:
        """Until the command has ended; after ``seconds`` it is killed, with all of its session."""
        answer = self._ask({"op": "wait", "pid": child.pid, "seconds": seconds})
        took = time.monotonic() - self._started.pop(child.pid)
        count = child.folder / "count"
        finished = Finished(
            answer["code"],
            _written(child.folder / "stdout"),
            _written(child.folder / "stderr"),
            int(count.read_text()) if count.exists() else 0,
            took,
        )
        shutil.rmtree(child.folder)
        return finished

    def run(self, words: Sequence[str], cwd: Path, **options: Any) -> Finished:
        """Both."""
        return self.wait(self.start(words, cwd, **options))

    def close(self) -> None:
        """End the parent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the parent of the commands has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _written(stream: Path) -> str:
    """What a child wrote; one that was killed at once has not even opened its streams."""
    return stream.read_text(errors="replace") if stream.exists() else ""


def environment(folder: Path) -> dict[str, str]:
    """Of a process with the layer below it; the layer is compiled if ``folder`` has none."""
    library = folder / "file_faults.so"
    if not library.exists():
        source = Path(__file__).with_name("file_faults.cpp")
        command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]
        subprocess.run([*command, "-o", str(library), str(source)], check=True)
    # One thread of arithmetic: a process that has started more must not be forked.
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **one, "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"}


def _prepare() -> None:
    """Import what the commands use; edgekit first, which keeps the others from reporting usage."""
    import edgekit  # noqa: I001
    import nncf.onnx.quantization.quantize_model  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    import edgekit.bench.run
    import edgekit.cli.main
    import edgekit.devices.deploy
    import edgekit.devices.remote.place
    import edgekit.devices.remote.previous
    import edgekit.training.run
    import edgekit.workflows.build
    import edgekit.workflows.parity  # noqa: F401
    from edgekit.export.exporter import export_onnx
    from edgekit.model.backbones.registry import BACKBONES
    from tests.bundles import TinyBackbone, network

    BACKBONES[TINY] = TinyBackbone
    # An export, for its imports and its table of operators: each child would take as long for them.
    # Not `bundles.made`: where another process has made that, there is nothing to export.
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(*network(), Path(folder) / "model.onnx")


def _child(request: dict[str, Any], faults: Any) -> int:
    os.setsid()
    atexit._clear()  # what is to be done when the parent ends
    streams = Path(request["streams"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(streams / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    tempfile.tempdir = None  # of the new environment
    os.chdir(request["cwd"])
    module, _, name = request["program"].partition(":")
    call = getattr(importlib.import_module(module), name)
    mode, at, folder, log = request["fault"]
    faults.file_faults_arm(mode, at, folder.encode(), log.encode())
    try:
        code = call(request["words"])
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001 # as the interpreter does with what nobody catches
        traceback.print_exc()
        code = 1
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    count = faults.file_faults_count()
    faults.file_faults_arm(0, 0, b"/nowhere", b"")
    (streams / "count").write_text(str(count))
    return int(code or 0)


def _wait(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGALRM


def main() -> None:
    """Serve requests until stdin ends."""
    faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
    faults.file_faults_count.restype = ctypes.c_long
    faults.file_faults_arm.argtypes = [
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_char_p,
        ctypes.c_char_p,
    ]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _prepare()
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "start":
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = _child(request, faults)
                finally:
                    os._exit(code)
            answer = {"pid": pid}
        elif request["op"] == "wait":
            answer = {"code": _wait(request["pid"], request["seconds"])}
        else:
            answer = {}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
