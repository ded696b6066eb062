"""Commands that do what no command may: the campaign has to see each of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def main(words: list[str]) -> None:
    """One of them, by name."""
    globals()[f"_{words[0]}"]()


def _well() -> None:
    print("done")


def _line() -> None:
    print("error: x is no bundle: give one", file=sys.stderr)
    sys.exit(2)


def _traceback() -> None:
    raise KeyError("surprise")


def _swallowed_traceback() -> None:
    print("Traceback (most recent call last):\n  ...\nKeyError", file=sys.stderr)
    _line()


def _hang() -> None:
    time.sleep(1000)


def _spin() -> None:
    while True:
        pass


def _memory() -> None:
    parts = []
    while True:
        parts.append(bytearray(b"x" * (50 << 20)))
        time.sleep(0.01)


def _burst() -> None:
    whole = b"x" * (900 << 20)
    del whole
    time.sleep(0.2)


def _child_memory() -> None:
    code = "x = bytearray(b'x' * (400 << 20)); import time; time.sleep(1000)"
    subprocess.run([sys.executable, "-c", code], check=False)


def _outside() -> None:
    Path("../stray").write_text("x")


def _far_outside() -> None:
    Path("../../stray").write_text("x")


def _home() -> None:
    Path("~/intel").expanduser().mkdir()


def _temporary() -> None:
    Path(os.environ["TMPDIR"], "left").write_text("x")


def _crash() -> None:
    os.kill(os.getpid(), 11)


def _code() -> None:
    print("error: x", file=sys.stderr)
    sys.exit(1)


def _silent() -> None:
    sys.exit(2)


def _escape() -> None:
    print("error: \x1b[2J is no bundle", file=sys.stderr)
    sys.exit(2)


def _left() -> None:
    subprocess.Popen(["sleep", "1000"])


def _warning() -> None:
    import warnings

    warnings.warn("odd", stacklevel=1)


if __name__ == "__main__":
    main(sys.argv[1:])
