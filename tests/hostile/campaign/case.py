"""One case of the campaign: what a command did within its limits, and whether that is all right.

A case's folder has these places. ``work`` is where the command runs and may write; ``cache`` and
``tmp`` are given to it by their variables; ``home`` is its HOME. Whatever else changes beside
``work`` and ``cache`` is a stray, and so is what is left in ``tmp`` at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
REFUSED = (2,)
"""The exit codes of what is somebody else's fault."""
HELPERS_GO = 5.0
"""Seconds that helpers of multiprocessing have to see the end of a command."""
_PATIENCE = 4


@dataclass(frozen=True)
class Verdict:
    """What became of one case."""

    kind: Literal["passed", "refused", "fault"]
    detail: str


class Hazard(Protocol):
    """A kind of case; ``run`` makes and judges one, the same for the same seed."""

    @property
    def name(self) -> str:
        """What ``--only`` selects."""

    def run(self, seed: int, folder: Path) -> Verdict:
        """Everything is written below ``folder``, which is empty."""


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    code: int
    """Its exit code; negative is the signal that ended it."""
    stdout: str
    stderr: str
    megabytes: float
    """The most memory that it and its children had at a time."""
    seconds: float
    stopped: str = ""
    """Why it was killed, if it was."""
    strays: tuple[str, ...] = ()
    """What changed where nothing may."""


class Places:
    """A case's folder, and what lies in it before and after."""

    def __init__(self, folder: Path, writes: tuple[str, ...] | None = None) -> None:
        """``writes`` are the names in ``work`` that may come or change; None: all of it may."""
        self.folder = folder
        self._writes = writes
        self.work = folder / "work"
        for name in ("work", "home", "cache", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.environment = {
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "EDGEKIT_CACHE": str(folder / "cache"),
            "EDGEKIT_DEVICES": str(folder / "work" / "devices.toml"),
            # Each case is to be cheap, and a pool of threads a core is not what is tried here.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
        }

    def listing(self) -> dict[str, tuple[int, ...]]:
        """All that must not change: beside the folder by name, in it by size and time."""
        found: dict[str, tuple[int, ...]] = {}
        for path in self.folder.parent.iterdir():
            found[f"../{path.name}"] = ()
        for name in (".cache", ".config", "intel", ".edgekit"):  # where the user database points
            real = Path(_real_home(), name)
            for path in (real, real / "edgekit"):
                if path.is_dir():
                    found[str(path)] = ()
        for top in self.folder.iterdir():
            found[top.name] = ()
            if top.name == "cache" or (top.name == "work" and self._writes is None):
                continue
            for inner in _below(top):
                if top.name == "work" and inner.relative_to(top).parts[0] in (self._writes or ()):
                    continue
                stat = inner.lstat()
                times = () if inner.is_dir() else (stat.st_size, stat.st_mtime_ns, stat.st_mode)
                found[str(inner.relative_to(self.folder))] = times
        return found

    def strays(self, before: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
        """What came, went or changed since."""
        now = self.listing()
        return tuple(sorted(name for name in {*before, *now} if before.get(name) != now.get(name)))


def _real_home() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir


def _below(folder: Path) -> Iterable[Path]:
    """Everything in it; a link is itself, not what it leads to."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        yield path
        yield from _below(path)


def run_limited(
    command: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path,
    seconds: float,
    megabytes: float,
) -> Ended:
    """Run a program in a session of its own in ``cwd``, the ``work`` of a case's folder.

    ``env`` comes on top of this process's environment and of the folder's places. It is killed,
    with all that it started, when it takes more memory, more of the CPU's seconds, or four times
    those by the clock.
    """
    places = Places(cwd.parent)
    before = places.listing()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.monotonic()
        process = subprocess.Popen(
            list(command), cwd=cwd, start_new_session=True, stdout=out, stderr=err,
            env={**os.environ, **places.environment, **(env or {})},
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        )  # fmt: skip
        if stdin is not None:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(stdin)
        watched = watch(process.pid, begin, seconds, megabytes)
        process.returncode = watched.code  # it is waited for already
        said = [text_of(stream) for stream in (out, err)]
    return Ended(
        watched.code, said[0], said[1], watched.megabytes, watched.seconds, watched.stopped,
        places.strays(before),
    )  # fmt: skip


def text_of(stream: IO[bytes]) -> str:
    """What a command wrote to a file, if that is not endless."""
    stream.seek(0)
    return stream.read(4 * MIB).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Watched:
    """How a process ended, but for what it said."""

    code: int
    megabytes: float
    seconds: float
    stopped: str


def watch(
    pid: int,
    begin: float,
    seconds: float,
    megabytes: float,
    *,
    fork_of: tuple[float, float] | None = None,
    patience: float | None = None,
) -> Watched:
    """Wait for a leader of a session; kill all of it at a limit.

    ``patience`` is what is given to those whom it leaves behind, instead of `HELPERS_GO`.

    ``fork_of`` says that it is a fork that runs no program of its own: MiB, in all and without
    pages of files, that it shares with the process that it came from. Pages of files come to it
    only when it uses them, so that its peak is known but for those.
    """
    all_of_it, anonymous = fork_of or (0.0, 0.0)
    peak, stopped = 0.0, ""
    pause = 0.002
    while True:
        got, status, usage = os.wait4(pid, os.WNOHANG)
        took = time.monotonic() - begin
        if got:
            break
        highest, now = _megabytes(pid, "VmHWM:"), _tree_megabytes(pid)
        peak = max(peak, highest - all_of_it, now - anonymous)
        if not stopped and _too_long(pid, took, seconds):
            stopped = f"ran longer than {seconds:g} s"
        if not stopped and peak > megabytes:
            stopped = f"took more than {megabytes:g} MB"
        if stopped:
            _kill(pid)
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    if fork_of:  # of a program, this counts the memory of whoever started it
        peak = max(peak, usage.ru_maxrss / 1024 - all_of_it)
    if not stopped and peak > megabytes:
        stopped = f"took {peak:.0f} MB, more than {megabytes:g} MB"
    code = os.waitstatus_to_exitcode(status)
    if not stopped and not _alone(pid, HELPERS_GO if patience is None else patience):
        stopped = "left processes behind"
    _kill(pid)
    return Watched(code, peak, took, stopped)


def _too_long(pid: int, took: float, seconds: float) -> bool:
    """On a busy machine a command gets but a share of the time; one that sleeps is given more."""
    return took > seconds and (took > _PATIENCE * seconds or _cpu_seconds(pid) > seconds)


def _cpu_seconds(pid: int) -> float:
    """Of a process and the children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _alone(pid: int, patience: float) -> bool:
    """Whether nothing of the session lives on; helpers of multiprocessing see its end and go."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        if not any(_living(path, pid) for path in Path("/proc").glob("[0-9]*/stat")):
            return True  # the dead whom nobody waited for
        time.sleep(0.02)
    return False


def _living(stat: Path, group: int) -> bool:
    try:
        state, _, its = stat.read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(its) == group and state != "Z"


def _tree_megabytes(pid: int) -> float:
    """What a process and its descendants have now without pages of files, MiB."""
    found, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        found += _megabytes(one, "RssAnon:", "RssShmem:")
        with contextlib.suppress(OSError, ValueError):
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def _megabytes(pid: int, *fields: str) -> float:
    """Entries of /proc/PID/status, together, MiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(fields)) / 1024


def memory_now() -> tuple[float, float]:
    """Of this process, as `watch` wants it of what a fork came from."""
    pid = os.getpid()
    return _megabytes(pid, "VmRSS:"), _tree_megabytes(pid)


_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\)|Fatal Python error|Exception ignored in|"
    r"terminate called|Segmentation fault|^\S+\.py:\d+: \w*Warning",
    re.MULTILINE,
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def judge(ended: Ended, allowed_codes: Iterable[int] = REFUSED) -> Verdict:
    """Success, or one clear line and a code of ``allowed_codes``; anything else is a fault."""
    fault = _fault(ended, tuple(allowed_codes))
    if fault:
        return Verdict("fault", fault)
    if ended.code == 0:
        return Verdict("passed", "")
    return Verdict("refused", f"{ended.code}: {ended.stderr.splitlines()[-1]}")


def _fault(ended: Ended, allowed: tuple[int, ...]) -> str:
    said = ended.stderr + ended.stdout
    if ended.stopped:
        return ended.stopped
    if ended.code < 0:
        return f"ended by {signal.Signals(-ended.code).name}: {ended.stderr[-300:]}"
    if found := _TRACEBACK.search(said):
        lines = [line for line in said[found.start() :].splitlines() if line.strip()]
        return f"{found[0]}: {lines[-1][:300]}"
    if found := _CONTROL.search(said):
        return f"raw control character {found[0]!r} in what it says"
    if ended.strays:
        return f"changed {', '.join(ended.strays[:5])}"
    if ended.code == 0:
        return ""
    if ended.code not in allowed:
        return f"exit code {ended.code}: {ended.stderr[-300:]}"
    lines = ended.stderr.splitlines()
    if not lines or not lines[-1].startswith("error: "):
        return f"exit code {ended.code} without its line: {ended.stderr[-300:]}"
    if len(lines[-1]) > 3000:
        return f"a line of {len(lines[-1])} characters"
    return ""
