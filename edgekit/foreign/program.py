"""A program as a classifier: whatever runs elsewhere, behind standard input and output.

Of every batch the program reads a line ``images COUNT HEIGHT WIDTH`` and COUNT x HEIGHT x WIDTH x 3
bytes, RGB; it writes a line ``logits COUNT CLASSES`` and COUNT x CLASSES float32, little-endian.
It ends when its input does, or is ended five seconds later. docs/foreign.md shows one of thirty
lines.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.core.errors import EdgekitError, UsageError
from edgekit.core.files import file_sha256
from edgekit.core.threads import result_of, submit
from edgekit.foreign.execution import Execution
from edgekit.foreign.tensors import Tensor

OUTPUT = "logits"
_LONGEST_LINE = 200
_MOST_CLASSES = 1 << 20
_MOST_WORDS: Final = 2000  # bytes of its standard error that are kept
_GRACE: Final = 5.0  # seconds to end by itself


@dataclass(frozen=True, eq=False)
class Program:
    """A running program. It answers one batch at a time, and ends with this process."""

    input: Tensor
    outputs: tuple[Tensor, ...]
    execution: Execution
    key: str
    parallel: int
    process: subprocess.Popen[bytes]
    errors: bytearray
    silent: Future[None]
    """Done once its standard error has ended."""
    lock: threading.Lock

    def run(self, images: NDArray[Any], output: str) -> NDArray[np.float32]:
        """One batch there and back."""
        with self.lock:
            what = f"{self.execution.runtime}: the answers to {len(images)} images"
            try:
                return result_of(submit(self._exchange, images), what)
            except EOFError as error:
                raise EdgekitError(
                    f"{self.execution.runtime} ended: {self._last_words()}"
                ) from error

    def _exchange(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        count, height, width, _ = images.shape
        with contextlib.suppress(BrokenPipeError):  # it ended, perhaps with words to read
            stdin.write(f"images {count} {height} {width}\n".encode())
            stdin.write(np.ascontiguousarray(images).tobytes())
            stdin.flush()
        line = stdout.readline(_LONGEST_LINE)
        if not line:
            raise EOFError
        words = line.decode("ascii", "replace").split()
        columns = int(words[2]) if len(words) == 3 and words[2].isdecimal() else 0
        if words[:2] != ["logits", str(count)] or not 2 <= columns <= _MOST_CLASSES:
            raise EdgekitError(
                f"{self.execution.runtime} wrote {line[:60]!r} where "
                f"'logits {count} CLASSES' is expected"
            )
        data = stdout.read(4 * count * columns)
        if len(data) < 4 * count * columns:
            raise EOFError
        return np.frombuffer(data, "<f4").reshape(count, columns).astype(np.float32)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        with contextlib.suppress(EdgekitError):  # a child of its own may keep it open
            result_of(self.silent, "", 1.0)
        text = bytes(self.errors).decode("utf-8", "replace").strip()
        last = text.splitlines()[-1] if text else "it wrote nothing on standard error"
        return f"exit code {self.process.returncode}, {last[:_LONGEST_LINE]}"


def open_program(command: str, size: tuple[int, int]) -> Program:
    """Start ``command``; images of ``size`` (height, width) will be sent to it."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"command:{command} is no command line: {error}") from error
    executable = shutil.which(words[0]) if words else None
    if executable is None:
        raise UsageError(f"no program '{words[0] if words else ''}': give command:PROGRAM ARGUMENT")
    try:
        process = subprocess.Popen(
            words,
            executable=executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what it starts can be ended with it
        )
    except OSError as error:
        raise UsageError(f"cannot start {executable}: {error.strerror}") from error
    atexit.register(_end, process, os.getpid())
    errors = bytearray()
    assert process.stderr is not None
    silent = submit(_keep_tail, process.stderr, errors)
    input_ = Tensor("images", (None, *size, 3), np.dtype(np.uint8), 1.0)
    name = f"program {Path(words[0]).name}"
    key = hashlib.sha256(f"{command}\n{_files(executable, words)}\n{size}".encode()).hexdigest()
    program = Program(
        input_,
        (),
        Execution(name, ()),
        f"{key} program",
        1,
        process,
        errors,
        silent,
        threading.Lock(),
    )
    # Asked once, to learn how many classes it has.
    (answer,) = program.run(np.zeros((1, *size, 3), np.uint8), OUTPUT)
    outputs = (Tensor(OUTPUT, (None, len(answer)), np.dtype(np.float32)),)
    return dataclasses.replace(program, outputs=outputs)


def _keep_tail(stream: IO[bytes], tail: bytearray) -> None:
    """Read to the end, which may never come, and remember what was said last."""
    while data := os.read(stream.fileno(), 1 << 16):
        tail += data
        del tail[:-_MOST_WORDS]


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Close its input; what has not ended soon is killed, with all that it started."""
    if os.getpid() != owner:  # a fork's exit
        return
    assert process.stdin is not None
    # Not close(): a writer that is stuck in the same stream would never let go of it.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), process.stdin.fileno())
    deadline = time.monotonic() + _GRACE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _files(executable: str, words: list[str]) -> list[str]:
    """Hashes of the program and of every file that its arguments name: they may be its model."""
    paths = [Path(executable), *(Path(word) for word in words[1:])]
    hashes = []
    for path in paths:
        with contextlib.suppress(OSError):  # no file has a name as long as a script
            if path.is_file():
                hashes.append(file_sha256(path))
    return hashes
