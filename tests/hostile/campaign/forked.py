"""Runs commands in children of a process that has imported what they need: a fork, not a start.

Starting Python and its packages costs more than most cases. What a fork does not show is therefore
what happens while modules are imported (with their variables, their missing packages), and at the
interpreter's very end; `case.run_limited` starts a real process for that. No runtime is used
before the fork: OpenVINO's and ONNX Runtime's threads would not live on in the child.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from edgekit.core.errors import EdgekitError
from tests.hostile.campaign import case
from tests.hostile.campaign.case import (
    REFUSED,
    ROOT,
    Ended,
    Places,
    Verdict,
    Watched,
    judge,
    memory_now,
    text_of,
    watch,
)

_MODULES = (
    *("edgekit.cli.main", "numpy", "PIL.Image", "onnxruntime", "openvino", "onnx", "torch"),
    *("safetensors.torch", "edgekit.runtime.onnxruntime", "edgekit.runtime.openvino"),
    *("edgekit.cli.predict", "edgekit.workflows.parity", "edgekit.workflows.inspect"),
    *("edgekit.workflows.build", "edgekit.report.page", "edgekit.devices.deploy"),
    *("edgekit.graph.lint", "edgekit.devices.check", "edgekit.training.run"),
)
SPARE = 3 << 30
"""Address space that a case may ask for; libraries reserve more than they use."""


@dataclass(frozen=True)
class Order:
    """One child: a function of a module, called with words."""

    function: str
    """``module:name``; it is given the words, and may end as ``sys.exit`` does."""
    words: tuple[str, ...]
    work: str
    environment: dict[str, str]
    seconds: float
    megabytes: float
    out: str
    err: str
    patience: float
    """Seconds for those whom it leaves behind to go."""


class Server:
    """The process whose children are the cases."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.campaign.forked"], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path])),
            },
        )  # fmt: skip
        atexit.register(self.close)

    def run(
        self,
        words: Sequence[str | Path],
        work: Path,
        *,
        seconds: float = 20,
        megabytes: float = 1000,
        environment: dict[str, str] | None = None,
        writes: tuple[str, ...] | None = None,
        function: str = "edgekit.cli.main:main",
    ) -> Ended:
        """``edgekit WORDS`` in ``work`` of a case's folder; as `case.run_limited`."""
        places = Places(work.parent, writes)
        assert places.work == work
        before = places.listing()
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            order = Order(
                function, tuple(os.fspath(word) for word in words), str(work),
                {**places.environment, **(environment or {})},
                seconds, megabytes, out.name, err.name, case.HELPERS_GO,
            )  # fmt: skip
            watched = self._ask(order)
            said = [text_of(stream) for stream in (out, err)]
        return Ended(
            watched.code, said[0], said[1], watched.megabytes, watched.seconds, watched.stopped,
            places.strays(before),
        )  # fmt: skip

    def _ask(self, order: Order) -> Watched:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the fork server ended with {self._process.wait()}")
        return Watched(**json.loads(answer))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(30)


@dataclass(frozen=True)
class Forked:
    """A hazard whose cases are each one command over files that ``prepare`` writes."""

    name: str
    prepare: Callable[[random.Random, Path], Sequence[str | Path]]
    """Given the folder to write to, it gives the command's words."""
    codes: tuple[int, ...] = REFUSED
    writes: tuple[str, ...] = ()
    """What the command may change in the folder."""
    seconds: float = 20
    megabytes: float = 1000
    function: str = "edgekit.cli.main:main"

    def run(self, seed: int, folder: Path) -> Verdict:
        """One case."""
        places = Places(folder)
        words = self.prepare(random.Random(f"{self.name} {seed}"), places.work)
        ended = server().run(
            words, places.work, seconds=self.seconds, megabytes=self.megabytes,
            writes=self.writes, function=self.function,
        )  # fmt: skip
        verdict = judge(ended, self.codes)
        return replace(verdict, detail=f"{shlex.join(map(str, words))}: {verdict.detail}")


_started: list[Server] = []


def server() -> Server:
    """This process's server, started when it is first wanted."""
    if not _started:
        _started.append(Server())
    return _started[0]


def _serve() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    from edgekit.model.backbones.registry import create_backbone

    with contextlib.suppress(EdgekitError):  # timm takes seconds, and is not there everywhere
        create_backbone("timm:test_vit")
    gc.collect()
    gc.freeze()  # children would copy all of it to count its references
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        begin = time.monotonic()
        memory = memory_now()
        pid = os.fork()
        if not pid:
            answers.close()
            _child(order)
        watched = watch(
            pid, begin, order.seconds, order.megabytes, fork_of=memory, patience=order.patience
        )
        print(json.dumps(asdict(watched)), file=answers, flush=True)


def _child(order: Order) -> NoReturn:
    """What `python -m edgekit` does, down to how it ends."""
    code = 70
    try:
        os.setsid()
        _redirect(order)
        code = _call(order)
        threading._shutdown()  # type: ignore[attr-defined] # as the interpreter: waits for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 # whatever it is, it is shown
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _redirect(order: Order) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(order.out, os.O_WRONLY), 1)
    os.dup2(os.open(order.err, os.O_WRONLY), 2)
    # Buffers of the server's streams are empty: it writes to neither after the fork.
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True
    )
    os.environ.update(order.environment)
    tempfile.tempdir = None
    os.chdir(order.work)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPARE, SPARE))


def _call(order: Order) -> int:
    module, _, name = order.function.partition(":")
    function: Callable[[list[str]], Any] = getattr(importlib.import_module(module), name)
    sys.argv = ["edgekit", *order.words]
    try:
        function(list(order.words))
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 # as the interpreter
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
